"""How the tests' drivers are started: they live for seconds, and half of their CPU would go into compiling what runs once."""

from typing import Final

QUICK: Final = "-XX:TieredStopAtLevel=1"
CONF: Final = {
    "spark.driver.extraJavaOptions": QUICK,
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
}
"""As a profile's ``conf``."""
TOML: Final = "conf = {" + ", ".join(f'"{key}" = "{value}"' for key, value in CONF.items()) + "}"
"""As a line of a profile in a configuration file."""
ENVIRONMENT: Final = {f"SPARKBROKER__PROFILES__DEFAULT__CONF__{key}": value for key, value in CONF.items()}
"""As a broker's environment, where no file says anything of the profile."""
