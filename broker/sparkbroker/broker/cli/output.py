"""Messages of the API as tables for people, or as the API's JSON for programs."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Final

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.control import Control
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, describe_quantity
from sparkbroker.client.visible import plain, visible
from sparkbroker.v1 import broker_pb2 as pb

_WIDE: Final = 1_000
_STATE_STYLE: Final = {
    "QUEUED": "yellow",
    "PROVISIONING": "cyan",
    "READY": "green",
    "RELEASING": "magenta",
    "FAILED": "bold red",
    "EXPIRED": "red",
}


class _Visible:
    """What is about to be shown, with the text of others made visible: before it is coloured.

    The last resort, since the layout is done by then: what is laid out in lines and columns is made of ``cell``.
    """

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._shown, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _MakeVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [item if isinstance(item, Control) else _Visible(item) for item in renderables]


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Stdout, or stderr. What isn't a terminal gets whole lines, however long. No markup: text is shown as it is.

    The only place that makes one: whatever it prints is visible.
    """
    stream = plain(sys.stderr if stderr else sys.stdout)
    width = None if stream.isatty() or stderr else _WIDE
    made = Console(file=stream, width=width, highlight=False, soft_wrap=False, markup=False, emoji=False, quiet=quiet)
    made.push_render_hook(_MakeVisible())
    return made


def print_json(message: Message, *, line: bool = False) -> None:
    """One message in the JSON mapping of protobuf; ``line``: as one line, at once."""
    print(MessageToJson(message, indent=None if line else 2), flush=line)


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines. Text is shown as it is: no markup, and a cell is one line however many its text has."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        result.add_column(heading, overflow="fold")
    for row in rows:
        result.add_row(*(item if isinstance(item, Text) else cell(item) for item in row))
    return result


def cell(text: str, *, style: str = "", lines: bool = False) -> Text:
    """Made visible before it is laid out: what is escaped takes more room, and a line end would begin a line for others."""
    return Text(visible(text, lines=lines), style=style)


def state(value: int) -> Text:
    """A lease's state, in its colour."""
    name = enum_name(pb.LeaseState, value, "LEASE_STATE_")
    return Text(name, style=_STATE_STYLE.get(name, ""))


def enum_name(kind: object, value: int, prefix: str) -> str:
    """The name of an enum's value without its prefix; the number of one that is newer than this program."""
    try:
        name: str = kind.Name(value)  # type: ignore[attr-defined]
    except ValueError:
        return str(value)
    return name.removeprefix(prefix)


def age(begin: Timestamp, now: float) -> str:
    """The time since then, to two units: ``3h12m``."""
    seconds = max(0, int(now - begin.seconds))
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    parts = [f"{days}d" * bool(days), f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes), f"{seconds}s"]
    return "".join([part for part in parts if part][:2])


def clock_time(moment: Timestamp) -> str:
    """Local time of day, with the date."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def quantities(amounts: dict[str, int]) -> str:
    """``2 cores, 3 GiB of memory``."""
    first = [name for name in (CPU, MEMORY) if name in amounts]
    names = first + sorted(amounts.keys() - set(first))
    return ", ".join(describe_quantity(name, amounts[name]) for name in names) or "-"


def short_name(name: str) -> str:
    """``leases/abc`` -> ``abc``."""
    return name.rpartition("/")[2]


def lease_rows(leases: Iterable[pb.Lease], now: float) -> Table:
    """For ``lease list``."""
    return table(
        ("LEASE", "STATE", "WHY", "QUEUE", "PROFILE", "HOLDS", "PRINCIPAL", "KEY", "AGE"),
        (
            (
                short_name(lease.name),
                state(lease.state),
                why(lease),
                lease.spec.queue,
                lease.spec.profile,
                holds(lease),
                lease.principal,
                lease.key or "-",
                age(lease.timings.queued_time, now),
            )
            for lease in leases
        ),
    )


def holds(lease: pb.Lease) -> str:
    """What it takes from its queue now."""
    held = (pb.LEASE_STATE_PROVISIONING, pb.LEASE_STATE_READY, pb.LEASE_STATE_RELEASING)
    return quantities(dict(lease.charge)) if lease.state in held else "-"


def why(lease: pb.Lease) -> str:
    """The reason; of a waiting lease with its place."""
    if lease.HasField("progress") and lease.progress.position:
        reason = enum_name(pb.LeaseReason, lease.progress.blocking_reason, "LEASE_REASON_")
        return f"{lease.progress.position} of {lease.progress.queue_length}, {reason}"
    return enum_name(pb.LeaseReason, lease.reason, "LEASE_REASON_")


def executors(lease: pb.Lease) -> str:
    """How many run of those it is to have, and why not all; empty: it has none."""
    if not lease.HasField("executors"):
        return ""
    seen = lease.executors
    pending = f", {seen.pending} pending" if seen.pending else ""
    why = f": {seen.message}" if seen.message else ""
    return f"{seen.running} of {seen.wanted} run{pending}{why}"


def lease_details(lease: pb.Lease) -> Table:
    """For ``lease get``: what is set, one thing a line."""
    spec = lease.spec
    rows: list[tuple[str, str | Text]] = [
        ("name", lease.name),
        ("key", lease.key),
        ("principal", lease.principal),
        ("state", state(lease.state)),
        ("why", why(lease)),
        ("message", lease.progress.message if lease.HasField("progress") else lease.message),
        ("outcome", enum_name(pb.LeaseState, lease.outcome, "LEASE_STATE_") if lease.outcome else ""),
        ("notice", lease.notice),
        ("queue", spec.queue),
        ("profile", spec.profile),
        ("mode", enum_name(pb.LeaseMode, spec.mode, "LEASE_MODE_")),
        ("priority", str(spec.priority) if spec.priority else ""),
        ("asks" if holds(lease) == "-" else "holds", quantities(dict(lease.charge))),
        ("executors", executors(lease)),
        ("attempt", str(lease.attempt)),
        ("driver", lease.driver),
        *((f"attached ({item.generation})", item.holder or item.id) for item in lease.attachments),
        *((name, clock_time(moment)) for name, moment in _timings(lease)),
        ("ended by", _exit(lease)),
        *(("", line) for line in lease.exit.log_tail),
    ]
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column()
    result.add_column(overflow="fold")
    for name, value in rows:
        if value:
            result.add_row(Text(name, style="bold"), value if isinstance(value, Text) else cell(value, lines=True))
    return result


def _timings(lease: pb.Lease) -> Iterable[tuple[str, Timestamp]]:
    for field in lease.timings.DESCRIPTOR.fields:  # as declared: in the order of the phases
        if lease.timings.HasField(field.name):
            yield field.name.removesuffix("_time").replace("_", " "), getattr(lease.timings, field.name)


def _exit(lease: pb.Lease) -> str:
    if not lease.HasField("exit"):
        return ""
    how = lease.exit.signal or (
        f"exit status {lease.exit.exit_code}" if lease.exit.HasField("exit_code") else "unknown"
    )
    return f"{how}, out of memory" if lease.exit.out_of_memory else how


def event_line(event: pb.LeaseEvent) -> Text:
    """For ``lease watch``."""
    kind = enum_name(pb.LeaseEventType, event.type, "LEASE_EVENT_TYPE_")
    what = state(event.state) if event.type == pb.LEASE_EVENT_TYPE_STATE else Text(kind)
    reason = enum_name(pb.LeaseReason, event.reason, "LEASE_REASON_")
    head = f"{clock_time(event.time)}  {short_name(event.lease)}  "
    return Text.assemble(head, what, cell(f"  {reason}  {event.message}".rstrip()))


def queue_rows(queues: Iterable[pb.Queue]) -> Table:
    """For ``queue list``."""
    return table(
        ("QUEUE", "QUOTA", "USED", "WAITING", "HOLDING", "FIRST WAITS FOR"),
        (
            (
                short_name(queue.name),
                quantities(dict(queue.nominal)),
                quantities({name: amount for name, amount in queue.used.items() if amount}),
                str(queue.queued),
                str(queue.admitted),
                queue.blocking_message or "-",
            )
            for queue in queues
        ),
    )


def profile_rows(profiles: Iterable[pb.Profile]) -> Table:
    """For ``profile list``."""
    return table(
        ("PROFILE", "PROVISIONER", "MASTER", "MODES", "DRIVER", "EXECUTORS", "DESCRIPTION"),
        (
            (
                short_name(profile.name),
                profile.provisioner,
                profile.master or "-",
                ", ".join(enum_name(pb.LeaseMode, mode, "LEASE_MODE_") for mode in profile.modes),
                _size(profile.defaults.driver),
                _executors(profile.defaults),
                cell(f"can't be used: {profile.unusable_message}", style="red")
                if profile.unusable_message
                else profile.description or "-",
            )
            for profile in profiles
        ),
    )


def _size(size: pb.ContainerSize) -> str:
    return f"{size.cores} x {size.memory}"


def _executors(spec: pb.LeaseSpec) -> str:
    if not spec.HasField("executors"):
        return "-"
    low, high = spec.executors.min_count, spec.executors.max_count
    return f"{low if low == high else f'{low} to {high}'} of {_size(spec.executors.size)}"
