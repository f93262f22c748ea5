"""What one caller leaves behind costs others nothing: neither their answers, nor their history, nor a restart."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = pb.ContainerSize(cores=1, memory="64m")


def memory(broker) -> int:
    """MiB of its process, at their most."""
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def many(count: int, do: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(do, range(count)):
            pass


def test_ten_thousand_large_leases_that_have_ended_fit_into_a_restart(broker, tools):
    def lease(size, number):
        conf = {"spark.small.pad": f"{number:08}" * (size // 8)}
        name = broker.acquire(conf=conf, mode=pb.LEASE_MODE_LOCAL, driver=SMALL).name
        broker.release(name)

    refusal = tools.refused(lambda: lease(65_400, 1))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "it may take 65536 (leases.max_spec_bytes)" in refusal.message
    many(10_000, lambda number: lease(60_000, number))
    assert memory(broker) < 400
    broker.kill()
    broker.start()
    assert memory(broker) < 400
    assert sum(path.stat().st_size for path in broker.state.glob("broker.db*")) < 300 << 20


@pytest.mark.promise(8)
def test_a_request_that_is_repeated_after_100_000_others_is_the_same_request(broker):
    # Nobody uses it meanwhile, for longer than the default allows.
    asked = {"mode": pb.LEASE_MODE_LOCAL, "driver": SMALL, "unattended_ttl": Duration(seconds=3600)}
    first = str(uuid.uuid4())
    held = broker.acquire(request_id=first, key="held", **asked).name
    many(100_200, lambda _: broker.release(broker.acquire(mode=pb.LEASE_MODE_LOCAL, driver=SMALL).name))
    for _ in range(2):
        assert broker.acquire(request_id=first, key="held", **asked).name == held
        assert memory(broker) < 400
        broker.kill()
        broker.start()
