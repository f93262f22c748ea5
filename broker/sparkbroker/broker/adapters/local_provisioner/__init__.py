"""Drivers as processes of this machine: Spark Connect servers under a small shim process each.

Promised: a driver listens on loopback only and answers only to its token, which is in no file, argument, log or record
of ours. What is reported ABSENT or EXITED has no process left, by session and by the mark in its environment, zombies
not counted; its scratch folder is gone too. Nothing is signalled but what carries this broker's mark, by pidfd. A broker
that is killed leaves its drivers running (unless it is embedded), and the next one over the same folder finds them.

Not promised: protection from code that runs in a driver: it runs as this user. A process that leaves its driver's session
*and* clears its environment is not found.
"""

from sparkbroker.broker.adapters.local_provisioner._archive import Archives
from sparkbroker.broker.adapters.local_provisioner._examine import ArchiveState, ClassArchive, class_archive, trial
from sparkbroker.broker.adapters.local_provisioner._launch import Launcher, LaunchPlan, Place, Versions
from sparkbroker.broker.adapters.local_provisioner._machine import machine_capacity
from sparkbroker.broker.adapters.local_provisioner._packages import Bounds, Jars
from sparkbroker.broker.adapters.local_provisioner._provisioner import LocalProvisioner
from sparkbroker.broker.adapters.local_provisioner._scratch import scratch_base
from sparkbroker.broker.adapters.local_provisioner._small import SmallLauncher
from sparkbroker.broker.adapters.local_provisioner._spark import SparkLauncher
from sparkbroker.broker.adapters.local_provisioner._toolchain import (
    Toolchain,
    discover,
    find_java,
    find_python,
    find_spark,
)

__all__ = [
    "ArchiveState",
    "Archives",
    "Bounds",
    "ClassArchive",
    "Jars",
    "LaunchPlan",
    "Launcher",
    "LocalProvisioner",
    "Place",
    "SmallLauncher",
    "SparkLauncher",
    "Toolchain",
    "Versions",
    "class_archive",
    "discover",
    "find_java",
    "find_python",
    "find_spark",
    "machine_capacity",
    "scratch_base",
    "trial",
]
