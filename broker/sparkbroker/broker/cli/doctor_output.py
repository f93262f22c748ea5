"""Shows what ``doctor`` found."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from sparkbroker.broker.cli.doctor_finding import Finding, Status
from sparkbroker.broker.cli.output import cell, console

_STYLE: Final = {Status.OK: "green", Status.WARN: "yellow", Status.MISSING: "bold red"}


def show(findings: Sequence[Finding], *, json_output: bool) -> None:
    """A table, or a JSON list of objects with what, status, found and fix."""
    if json_output:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "found", "to mend it"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        status = Text(finding.status.value, style=_STYLE[finding.status])
        table.add_row(status, *(cell(text, lines=True) for text in (finding.what, finding.found, finding.fix)))
    console().print(table)
