"""Calls without a token, as fast as they go: they must cost little, and not fill the log."""

import asyncio
import contextlib
from typing import Final

import grpc

from sparkbroker.v1 import broker_pb2 as pb
from tests.torture.attacks.victim import Victim

CONNECTIONS: Final = 8
AT_ONCE: Final = 8


async def attack(victim: Victim) -> None:
    async def caller() -> None:
        async with victim.channel() as channel:
            stub = victim.stub(channel)

            async def calls() -> None:
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await stub.ListLeases(pb.ListLeasesRequest(), timeout=5)
                    victim.achieved["calls"] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(calls())

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(caller())
