"""Values that the domain's tests start from. No event loop, no clock, nothing on disk."""

from collections.abc import Callable

import msgspec
import pytest

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import MIB, Resources
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, Lease, LeaseSpec
from sparkbroker.broker.domain.lease.timings import Timings
from sparkbroker.broker.domain.units import Epoch, LeaseId, Principal, Seconds, ServingTime, WallTime

GIB = 1024 * MIB


@pytest.fixture(scope="session")
def spec() -> LeaseSpec:
    return LeaseSpec(
        profile="small",
        queue="etl",
        driver=ContainerSize(cores=1, memory=GIB),
        wait_ttl=Seconds(60.0),
        unattended_ttl=Seconds(40.0),
        ttl=Seconds(20.0),
    )


@pytest.fixture(scope="session")
def make_lease(spec: LeaseSpec) -> Callable[..., Lease]:
    def make(**changes: object) -> Lease:
        lease = Lease(
            id=LeaseId("l1"),
            principal=Principal("ann"),
            spec=spec,
            profile_fingerprint="f",
            pool="local",
            charge=Resources.of(cores=1, memory=GIB),
            timings=Timings(queued=WallTime(1.0)),
            enqueued=ServingTime(0.0),
            wait_deadline=ServingTime(60.0),
            renewed_epoch=Epoch(1),
        )
        return msgspec.structs.replace(lease, **changes)

    return make


@pytest.fixture(scope="session")
def make_profile(spec: LeaseSpec) -> Callable[..., Profile]:
    def make(**changes: object) -> Profile:
        profile = Profile(
            name="small",
            defaults=msgspec.structs.replace(
                spec,
                executors=ExecutorSpec(size=ContainerSize(cores=2, memory=2 * GIB), min_count=1, max_count=3),
                conf={"spark.sql.shuffle.partitions": "8"},
                labels={"team": "x"},
                packages=("g:default:1",),
            ),
            conf={"spark.sql.session.timeZone": "UTC"},
            allowed_conf=("spark.sql.shuffle.partitions", "spark.sql.adaptive.*", "spark.sql.session.*"),
        )
        return msgspec.structs.replace(profile, **changes)

    return make
