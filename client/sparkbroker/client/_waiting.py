"""The way of a lease to READY, as its holder sees it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from sparkbroker.client import _clock, _progress
from sparkbroker.client._errors import AcquireTimeout, BrokerUnreachable, EventsCompacted
from sparkbroker.client._holding import Holding
from sparkbroker.client._values import LIVE, Progress
from sparkbroker.v1 import broker_pb2 as pb


async def refresh(holding: Holding) -> pb.Lease:
    """Read the lease."""
    request = pb.GetLeaseRequest(name=holding.name)
    holding.info = (await holding.context.rpc.call("GetLease", request, pb.GetLeaseResponse)).lease
    return holding.info


async def changes(holding: Holding, timeout: float | None) -> AsyncGenerator[Progress, None]:
    """Each change until the lease is READY, which is the last; see AsyncLease.progress."""
    end = None if timeout is None else _clock.now() + timeout
    progress = _progress.from_lease(holding.info)
    told: Progress | None = None
    watch = holding.context.rpc.watch(holding.name, 0, outages=True)
    try:
        while True:
            if progress.state not in LIVE:
                raise _progress.acquire_error(await refresh(holding))
            if progress != told:
                told = progress
                yield progress
            if progress.state == "READY":
                return
            try:
                async with asyncio.timeout(None if end is None else max(0.0, end - _clock.now())):
                    update = await anext(watch)
            except TimeoutError as error:
                text = f"{holding.name} was not ready within {timeout} s: {progress.state}, {progress.message}"
                raise AcquireTimeout(text, lease=holding.name, state=progress.state, reason=progress.reason) from error
            except EventsCompacted:
                watch = holding.context.rpc.watch(holding.name, 0, outages=True)
                continue
            except StopAsyncIteration:
                progress = _progress.from_lease(await refresh(holding))
                continue
            if isinstance(update, BrokerUnreachable):
                progress = replace(progress, broker_unreachable=True, message=update.message)
                continue
            progress = _progress.after_update(progress, update)
            _see(holding, update)
    finally:
        await watch.aclose()


def _see(holding: Holding, update: pb.WatchLeaseResponse) -> None:
    if update.WhichOneof("update") == "snapshot":
        holding.info = update.snapshot
    elif update.WhichOneof("update") == "event":
        holding.info.state = update.event.state
        holding.info.reason = update.event.reason
        holding.info.message = update.event.message
        holding.info.attempt = update.event.attempt
