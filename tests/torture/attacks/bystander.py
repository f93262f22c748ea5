"""Somebody who works while the broker is attacked: how long each call took, and what was refused or lost."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sparkbroker.v1 import broker_pb2 as pb
from tests.torture.attacks.target import Target

WORKERS: Final = 4
PAUSE: Final = 0.05
"""Seconds between two calls of a worker: her load is light."""
CALL: Final = 30.0
"""Seconds after which a call is lost."""
START: Final = 60.0
"""Seconds after which a driver that didn't start is lost."""
PATIENCE: Final = 3
"""Of the times that a call is tried again when a connection broke: any network breaks connections."""


class Bystander:
    """``ann``: workers that ask for leases, look at them, list them and release them; one that starts drivers and reads
    their logs; one that asks for the broker's health.

    ``times``: seconds, by call. ``failures``: what was refused or lost, as sentences.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._headers = target.headers("ann")
        self.times: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    async def work(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._lease(), name=f"lease-{number}")
            group.create_task(self._start(), name="start")
            group.create_task(self._health(), name="health")

    def take(self) -> tuple[dict[str, list[float]], list[str]]:
        """What was seen since the last time, which is forgotten."""
        times, failures = self.times, self.failures
        self.times, self.failures = defaultdict(list), []
        return times, failures

    async def _lease(self) -> None:
        async with self._target.channel() as channel:
            stub = self._target.stub(channel)
            while True:
                spec = pb.LeaseSpec(mode=pb.LEASE_MODE_LOCAL)
                request = pb.AcquireLeaseRequest(request_id=str(uuid.uuid4()), spec=spec)
                if (acquired := await self._call("AcquireLease", stub.AcquireLease, request)) is None:
                    continue
                name = acquired.lease.name
                await self._call("GetLease", stub.GetLease, pb.GetLeaseRequest(name=name))
                await self._call("ListLeases", stub.ListLeases, pb.ListLeasesRequest(page_size=20, filter="live=true"))
                await self._call("ReleaseLease", stub.ReleaseLease, pb.ReleaseLeaseRequest(name=name))

    async def _start(self) -> None:
        """A driver, its log, its end."""
        async with self._target.channel() as channel:
            stub = self._target.stub(channel)
            while True:
                request = pb.AcquireLeaseRequest(request_id=str(uuid.uuid4()))
                begun = time.perf_counter()
                if (acquired := await self._call("AcquireLease", stub.AcquireLease, request)) is None:
                    continue
                name = acquired.lease.name
                if await self._ready(stub, name):
                    self.times["start"].append(time.perf_counter() - begun)
                    await self._log(stub, name)
                await self._call("ReleaseLease", stub.ReleaseLease, pb.ReleaseLeaseRequest(name=name))

    async def _ready(self, stub: Any, name: str) -> bool:
        deadline = time.perf_counter() + START
        while time.perf_counter() < deadline:
            answer = await self._call("GetLease", stub.GetLease, pb.GetLeaseRequest(name=name))
            if answer is not None and answer.lease.state == pb.LEASE_STATE_READY:
                return True
            if answer is not None and answer.lease.state not in {pb.LEASE_STATE_QUEUED, pb.LEASE_STATE_PROVISIONING}:
                self.failures.append(
                    f"lost: {name} is {pb.LeaseState.Name(answer.lease.state)}: {answer.lease.message}"
                )
                return False
        self.failures.append(f"lost: {name} was not READY after {START:g} s")
        return False

    async def _log(self, stub: Any, name: str) -> None:
        async def read(request: pb.StreamLogsRequest, **options: Any) -> list[pb.StreamLogsResponse]:
            return [chunk async for chunk in stub.StreamLogs(request, **options)]

        await self._call("StreamLogs", read, pb.StreamLogsRequest(name=name))

    async def _health(self) -> None:
        async with self._target.channel() as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                await self._call("Health", stub.Check, health_pb2.HealthCheckRequest())

    async def _call(self, name: str, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """The answer, after a pause; None: the call was refused or lost."""
        for attempt in range(PATIENCE):
            begun = time.perf_counter()
            try:
                answer = await method(request, timeout=CALL, metadata=self._headers)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == PATIENCE - 1:
                    self.failures.append(f"{name}: {error.code().name} {error.details()}")
                    break
            else:
                self.times[name].append(time.perf_counter() - begun)
                await asyncio.sleep(PAUSE)
                return answer
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(PAUSE)
        return None
