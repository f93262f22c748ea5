"""The table of ends, from a real run: ``docs/reference/airflow-ends.md``, one section for each version of Airflow."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "airflow-ends.md"
WRITE: Final = "WRITE_AIRFLOW_ENDS"
"""The environment variable under which a run of test_ends.py writes the page (``make airflow-ends``)."""
HEAD: Final = """\
# How tasks end

`tests/airflow/test_ends.py` measured these ends with the real scheduler, LocalExecutor and triggerer, and a broker with the local
provisioner. `make airflow-ends` measures them again and writes these tables.

- The Spark job writes the time repeatedly. Its last beat shows when it stopped.
- The ends of a single task ran four at a time, the others alone. The machine is named below each table.
- Seconds count from the cause of the end: the click, the signal, the timeout, the function's return.
- *Job stopped after*: the job's last beat.
- *Lease free after*: when the broker had confirmed that the driver is gone, and counted its capacity as free.
- No row left a lease, a charge or a process behind.
- The broker's `ttl` was {ttl} s (its default is 30 s). It ends the lease if the task had no time to act, such as after SIGKILL.
"""
ENDS: Final = (
    "success", "failure", "marked failed", "marked success", "cleared", "`execution_timeout`", "DAG run timeout",
    "worker SIGTERM", "worker SIGKILL", "triggerer SIGTERM", "triggerer SIGKILL", "scheduler", "broker", "driver",
)  # fmt: skip
"""How each end's name begins, in the table's order."""
COLUMNS: Final = (
    "| end | task's state | job stopped after | lease free after | lease's end |\n| --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True)
class Row:
    """Of one end. Seconds; None: the job or the lease goes on."""

    end: str
    state: str
    job: float | None
    lease: float | None
    outcome: str

    def line(self) -> str:
        """As Markdown."""
        job, lease = (("goes on" if value is None else f"{value:.1f} s") for value in (self.job, self.lease))
        return f"| {self.end} | {self.state} | {job} | {lease} | {self.outcome} |\n"


class EndsTable:
    """Collects rows, and writes the section of one version."""

    def __init__(self, version: str, ttl: int) -> None:
        self.version = version
        self.ttl = ttl
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row.line(), end="")

    def section(self, machine: str) -> str:
        """What this run has measured."""
        rows = sorted(self.rows, key=lambda row: [row.end.startswith(name) for name in ENDS].index(True))
        return f"## Airflow {self.version}\n\n{COLUMNS}{''.join(row.line() for row in rows)}\n{machine}\n"

    def write(self, machine: str) -> None:
        """Into the page, in place of what another run of this version wrote; only where that is asked for."""
        if not os.environ.get(WRITE):
            return
        old = PAGE.read_text() if PAGE.exists() else ""
        sections = {part.split("\n", 1)[0]: part for part in re.split(r"(?m)^(?=## )", old)[1:]}
        new = self.section(machine)
        minor = self.version.rsplit(".", 1)[0]
        sections = {title: text for title, text in sections.items() if not title.startswith(f"## Airflow {minor}.")}
        sections[new.split("\n", 1)[0]] = new
        ordered = [sections[title].rstrip() + "\n" for title in sorted(sections, key=_version, reverse=True)]
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text("\n".join([HEAD.format(ttl=self.ttl), *ordered]))


def _version(title: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", title))
