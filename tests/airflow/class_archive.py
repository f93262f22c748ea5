"""Makes the class archive of the tests' drivers before the tests: they leave no idle time for it. ``python -m`` this.

Once for each environment: later runs find it. What fails is told, and the tests do without.
"""

import os
import subprocess
import sys
import time

import msgspec

from sparkbroker.broker.adapters.local_provisioner import ArchiveState, class_archive, discover
from sparkbroker.broker.domain.lease import ContainerSize, LeaseSpec
from sparkbroker.broker.domain.profile import Profile
from tests.airflow.brokers import CACHE

LONGEST = 600.0


def main() -> None:
    """As the tests' brokers would, with their Java and Spark."""
    for name in ("JAVA_HOME", "SPARK_HOME"):
        os.environ.pop(name, None)
    spec = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=1, memory=1 << 30))
    tools = discover(Profile(name="default", defaults=spec))
    if class_archive(CACHE, tools).state is ArchiveState.THERE:
        return
    (CACHE / "archives").mkdir(parents=True, exist_ok=True, mode=0o700)
    begun, trainer = time.monotonic(), "sparkbroker.broker.adapters.local_provisioner._train"
    command = [sys.executable, "-m", trainer, str(CACHE), msgspec.json.encode(tools).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as made:
        try:
            made.wait(LONGEST)
        except subprocess.TimeoutExpired:
            made.kill()
    print(f"class archive: {class_archive(CACHE, tools).state}, after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
