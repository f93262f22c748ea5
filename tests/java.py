"""How the tests' drivers are started: they live for seconds, and half of their CPU would go into the optimising compiler."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

OPTION: Final = "spark.driver.extraJavaOptions"
QUICK: Final = "-XX:TieredStopAtLevel=1"
CONF: Final = {OPTION: QUICK}
"""As a profile's ``conf``."""
WITH_EXECUTORS: Final = CONF | {"spark.executor.extraJavaOptions": QUICK}
"""As above, where the driver has executors in JVMs of their own."""
ENVIRONMENT: Final = {f"SPARKBROKER__PROFILES__DEFAULT__CONF__{OPTION}": QUICK}
"""As a broker's environment, where no file says anything of the profile."""


CACHE: Final = Path(__file__).parents[1] / ".cache" / "tests"
"""Class archives are kept from run to run: they halve the start of each of a hundred drivers. ``make`` makes them first."""


def toml(conf: Mapping[str, str] = CONF) -> str:
    """As a line of a profile in a configuration file."""
    return "conf = {" + ", ".join(f'"{key}" = "{value}"' for key, value in conf.items()) + "}"
