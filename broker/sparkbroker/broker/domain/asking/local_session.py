"""What a session in the holder's own process (mode LOCAL) is built with.

Promised: it has the configuration, packages and jars that a driver of the broker's would have, and what can't be given to
another process is refused where it is asked for. What depends on the holder's machine, such as addresses and folders, is
its client's to say. Spark, Java and Python are the holder's own: the profile's are those of the broker's drivers.
"""

from collections.abc import Mapping
from typing import Any, Final

from sparkbroker.broker.domain.asking.conf import jar_uri
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.asking.sizing import single_process
from sparkbroker.broker.domain.capacity.resources import format_memory
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseSpec

_SEEN: Final = ("env", "volumes", "volume_mounts", "init_containers", "sidecars", "driver_template")
"""Pod settings that a program in the driver can see. The others say where a pod runs, and under which names."""


def local_master(spec: LeaseSpec) -> str:
    """One process, with the threads of the driver and all executors."""
    return f"local[{single_process(spec).threads}]"


def local_conf(spec: LeaseSpec, profile: Profile) -> dict[str, str]:
    """Spark's configuration: the profile's over the holder's, as in a driver; then what is the lease's own."""
    conf = {"spark.ui.enabled": str(profile.ui).lower(), "spark.ui.port": "0", **spec.conf, **profile.conf}
    for key, more in (("spark.jars", tuple(map(jar_uri, spec.jars))), ("spark.jars.packages", spec.packages)):
        listed = [part for item in conf.get(key, "").split(",") if (part := item.strip())]
        if joined := ",".join(dict.fromkeys([*more, *listed])):
            conf[key] = joined
    return {**conf, "spark.driver.memory": format_memory(single_process(spec).heap)}


def check_local(pod: Mapping[str, Any], mode: LeaseMode, profile: Profile) -> None:
    """Raise InvalidField for what a LOCAL session can't have. ``pod``: the holder's own settings."""
    if mode is not LeaseMode.LOCAL:
        return
    if pod:
        raise InvalidField(
            "spec.pod",
            f"a {mode} lease has no pod, and {', '.join(sorted(pod))} can't be given",
            "use the mode CONNECT",
        )
    seen = [name for name in _SEEN if getattr(profile.pod, name)]
    if seen:
        problem = (
            f"profile `{profile.name}` gives its pods {', '.join(seen)}, and a LOCAL session runs in your own process"
        )
        raise InvalidField("spec.mode", problem, "use the mode CONNECT, or another profile")
