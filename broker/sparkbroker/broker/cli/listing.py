"""Commands that ask once and print the answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.cli import output
from sparkbroker.broker.cli.context import Globals
from sparkbroker.broker.cli.locate import find
from sparkbroker.client import AsyncBroker, BrokerUnreachable, resolve_address
from sparkbroker.v1 import admin_pb2
from sparkbroker.v1 import broker_pb2 as pb

PATIENCE: Final = 10.0
"""Seconds for a broker that doesn't answer: somebody sits and waits."""


def connect(options: Globals) -> AsyncBroker:
    """The broker. Raise BrokerUnreachable if none is configured and none answers on the default socket."""
    address = find(options.url)
    if address is None:
        default = resolve_address(options.url)
        raise BrokerUnreachable(
            f"no broker is configured, and none answers at {default.url}; "
            "start one with `sparkbroker serve`, or set SPARKBROKER_URL or --url"
        )
    path = address.url.removeprefix("unix://")
    if path != address.url and not Path(path).exists():
        raise BrokerUnreachable(f"no broker listens at {address.url}: there is no such socket; is it running?")
    return AsyncBroker(address, patience=PATIENCE)


def full_name(name: str) -> str:
    """``abc`` -> ``leases/abc``."""
    return name if name.startswith("leases/") else f"leases/{name}"


async def leases(options: Globals, selection: str, *, everything: bool, limit: int) -> None:
    """``lease list``."""
    terms = [term for term in ("" if everything else "live=true", selection) if term]
    async with connect(options) as broker:
        found = await broker.list(" AND ".join(terms), limit=limit)
    if options.json:
        output.print_json(pb.ListLeasesResponse(leases=found))
    else:
        output.console().print(output.lease_rows(found, SystemClock().wall()))


async def lease(options: Globals, name: str) -> None:
    """``lease get``."""
    async with connect(options) as broker:
        found = await broker.get(full_name(name))
    if options.json:
        output.print_json(found)
    else:
        output.console().print(output.lease_details(found))


async def release(options: Globals, names: Sequence[str], message: str) -> None:
    """``lease release``: all of them, in order; the first that is refused ends it."""
    async with connect(options) as broker:
        for name in names:
            released = await broker.release(full_name(name), message)
            if options.json:
                output.print_json(released, line=True)
            else:
                output.console().print(released.name, output.state(released.state))


async def force_release(options: Globals, names: Sequence[str], message: str) -> None:
    """``lease release --force``: as ``release``, and what was done."""
    async with connect(options) as broker:
        for name in names:
            released, done = await broker.force_release(full_name(name), message)
            if options.json:
                output.print_json(admin_pb2.ForceReleaseResponse(lease=released, done=done), line=True)
            else:
                output.console().print(released.name, output.state(released.state), output.cell(done))


async def queues(options: Globals) -> None:
    """``queue list``."""
    async with connect(options) as broker:
        found = await broker.queues()
    if options.json:
        output.print_json(pb.ListQueuesResponse(queues=found))
    else:
        output.console().print(output.queue_rows(found))


async def profiles(options: Globals) -> None:
    """``profile list``."""
    async with connect(options) as broker:
        found = await broker.profiles()
    if options.json:
        output.print_json(pb.ListProfilesResponse(profiles=found))
    else:
        output.console().print(output.profile_rows(found))
