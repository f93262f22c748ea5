"""The broker's configuration: one TOML file plus the environment, validated as a whole.

Promises: a ``Config`` is complete, frozen and consistent; everything that is wrong with a file is said at once, each
with its field's TOML path (and the environment variable, if that said it) and with what would be right; an unknown key
is refused. Not promised: that files and folders it names exist or can be used (who uses them says so), or that the
machine is as large as ``[capacity]`` claims.

``domain`` values come from ``to_profiles``, ``to_queues`` and ``to_capacity``.
"""

from sparkbroker.broker.config.allowed_conf import DEFAULT_ALLOWED_CONF
from sparkbroker.broker.config.check import capacity_warnings, check_principals
from sparkbroker.broker.config.convert import to_capacity, to_profiles, to_queues
from sparkbroker.broker.config.load import (
    NO_HOME,
    default_cache_folder,
    default_state_folder,
    find_config,
    load_config,
)
from sparkbroker.broker.config.model import Config
from sparkbroker.broker.config.problems import ConfigError, Problem
from sparkbroker.broker.config.profiles import Profile
from sparkbroker.broker.config.sections import Kubernetes, Leases, Local, Pool, Queue, Server, Store

__all__ = [
    "DEFAULT_ALLOWED_CONF",
    "NO_HOME",
    "Config",
    "ConfigError",
    "Kubernetes",
    "Leases",
    "Local",
    "Pool",
    "Problem",
    "Profile",
    "Queue",
    "Server",
    "Store",
    "capacity_warnings",
    "check_principals",
    "default_cache_folder",
    "default_state_folder",
    "find_config",
    "load_config",
    "to_capacity",
    "to_profiles",
    "to_queues",
]
