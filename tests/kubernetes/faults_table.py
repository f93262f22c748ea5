"""The table of faults, from a real run: ``docs/reference/kubernetes-faults.md``."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sparkbroker.v1 import broker_pb2 as pb

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "kubernetes-faults.md"
WRITE: Final = "SPARKBROKER_WRITE_FAULTS"
"""The environment variable under which a run of the fault tests writes the page (``make kubernetes-faults``)."""
LONGEST: Final = 160
HEAD: Final = """\
# Faults on Kubernetes

`tests/kubernetes` measured these faults on the cluster of `make cluster`. `make kubernetes-faults` measures them again and writes this
page.

- Seconds count from the fault. For a pod that never starts, they count from the request.
- *Reported after*: when the lease ended or had the message, by the broker's clock.
- *Free after*: when the broker had confirmed that all pods are gone, and counted their capacity as free.
- After each row, nothing was left in the namespace, and nothing was charged.
- The broker gives up a pod that can't start after the profile's `start_timeout`, here 5 to 20 s, or earlier if no retry can help.
- A watch whose version the API server has forgotten (410) has no row: the broker lists everything again, and no lease notices.

| fault | lease | reason | reported after | free after | message |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Row:
    """Of one fault. Seconds; None: it doesn't apply, the lease goes on."""

    fault: str
    lease: pb.Lease
    told: float | None
    free: float | None

    def line(self) -> str:
        """As Markdown."""
        told, free = map(_seconds, (self.told, self.free))
        state = pb.LeaseState.Name(self.lease.state).removeprefix("LEASE_STATE_")
        reason = pb.LeaseReason.Name(self.lease.reason).removeprefix("LEASE_REASON_")
        text = self.lease.message.replace("|", "\\|")
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        return f"| {self.fault} | {state} | {reason} | {told} | {free} | {text} |\n"


def _seconds(value: float | None) -> str:
    if value is None:
        return "goes on"
    return f"{value:.1f} s" if value >= 0 else "before"


class FaultsTable:
    """Collects rows, and writes the page where that is asked for."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def add(self, fault: str, lease: pb.Lease, since: float | None = None) -> None:
        """A lease that has ended of a fault at ``since``, in Unix seconds; None: since it was asked for."""
        times = lease.timings
        begin = times.queued_time.ToNanoseconds() / 1e9 if since is None else since
        moments = ((each.ToNanoseconds() / 1e9 - begin) for each in (times.releasing_time, times.end_time))
        self._rows.append(Row(fault, lease, *moments))

    def goes_on(self, fault: str, lease: pb.Lease) -> None:
        """A fault that the lease survived."""
        self._rows.append(Row(fault, lease, None, None))

    def write(self) -> None:
        """All of it."""
        if not os.environ.get(WRITE) or not self._rows:
            return
        when = datetime.now(UTC).date()
        load = os.getloadavg()[2]
        machine = f"\n{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, a load of {load:.0f}, {when}.\n"
        PAGE.write_text(HEAD + "".join(row.line() for row in self._rows) + machine)
