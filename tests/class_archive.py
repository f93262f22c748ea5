"""Makes the class archive of the tests' drivers before the tests: they leave no idle time for it. ``python -m`` this.

Once for each environment: later runs find it. What fails is told, and the tests do without.
"""

import asyncio
import os
import time

from sparkbroker.broker.adapters.local_provisioner import Archives, ArchiveState, class_archive, discover
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec
from tests.airflow.brokers import CACHE


async def make() -> None:
    """As the tests' brokers would, with their Java and Spark."""
    spec = LeaseSpec(profile="default", queue="default", driver=ContainerSize(cores=1, memory=1 << 30))
    tools = discover(Profile(name="default", defaults=spec))
    if class_archive(CACHE, tools).state is ArchiveState.THERE:
        return
    begun, archives = time.monotonic(), Archives(CACHE)
    archives.options(tools, time.time())
    await archives.built()
    print(f"class archive: {class_archive(CACHE, tools).state}, after {time.monotonic() - begun:.0f} s")


def main() -> None:
    for name in ("JAVA_HOME", "SPARK_HOME"):
        os.environ.pop(name, None)
    asyncio.run(make())


if __name__ == "__main__":
    main()
