"""Commands that go on printing: watches and logs. Messages of a stream are one JSON object a line."""

import sys
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final

from sparkbroker.broker.cli import output
from sparkbroker.broker.cli.context import Globals
from sparkbroker.broker.cli.listing import connect, full_name
from sparkbroker.v1 import broker_pb2 as pb

_LONGEST_LINE: Final = 1 << 20
"""Bytes of a line that are waited for: a longer one is shown as several."""


async def one_lease(options: Globals, name: str) -> None:
    """``lease watch NAME``: until its terminal event."""
    async with connect(options) as broker, aclosing(broker.watch(full_name(name))) as updates:  # type: ignore[type-var]
        async for update in updates:
            if options.json:
                output.print_json(update, line=True)
            else:
                _show(update)


def _show(update: pb.WatchLeaseResponse) -> None:
    console = output.console()
    match update.WhichOneof("update"):
        case "snapshot":
            lease = update.snapshot
            line = output.cell(f"{output.short_name(lease.name)} is ")
            console.print(line, output.state(lease.state), output.cell(f"  {output.why(lease)}"), sep="")
        case "event":
            console.print(output.event_line(update.event))
        case "progress":
            waiting = update.progress
            place = f"{waiting.position} of {waiting.queue_length}: " if waiting.position else ""
            console.print(output.cell(f"  {place}{waiting.message}"))
        case _:
            return  # Of a kind that is newer than this program: -o json shows it.


async def all_leases(options: Globals, selection: str) -> None:
    """``lease watch``: for ever."""
    async with connect(options) as broker, aclosing(broker.watch_all(selection)) as updates:  # type: ignore[type-var]
        async for update in updates:
            if options.json:
                output.print_json(update, line=True)
            elif update.HasField("event"):
                output.console().print(output.event_line(update.event))


async def logs(options: Globals, name: str, *, follow: bool, tail: int, attempt: int) -> None:
    """``lease logs``: the bytes as they are, and on a terminal made visible (see ``main``)."""
    async with connect(options) as broker:
        pieces = broker.logs(full_name(name), tail_lines=tail, follow=follow, attempt=attempt)
        async with aclosing(pieces) as opened:  # type: ignore[type-var]
            async for piece in opened:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()


async def all_logs(options: Globals, name: str, *, follow: bool, tail: int, attempt: int) -> None:
    """``lease logs --executors``: line by line, each after the name of who said it."""
    begun: dict[str, bytes] = {}
    async with connect(options) as broker:
        pieces = broker.all_logs(full_name(name), tail_lines=tail, follow=follow, attempt=attempt)
        async with aclosing(pieces) as opened:  # type: ignore[type-var]
            async for piece in opened:
                *lines, rest = (begun.get(piece.source, b"") + piece.data).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                begun[piece.source] = rest
                _say(piece.source, lines)
    for source, rest in begun.items():
        _say(source, [rest] if rest else [])


def _say(source: str, lines: Iterable[bytes]) -> None:
    who = source.encode() or b"driver"
    sys.stdout.buffer.write(b"".join(b"%b | %b\n" % (who, line) for line in lines))
    sys.stdout.buffer.flush()
