"""Tables of the Airflow pages, generated from what they are about: the provider's own data, and a measurement.

A MkDocs hook (``mkdocs.yml``). Needs no Airflow: only modules of the provider that are data. A table stands where its
marker is; a marker without a table, or an Airflow page that has lost one, is found by tests/test_docs_airflow.py.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parent
ENDS: Final = DOCS / "reference" / "airflow-ends.md"
"""Written by ``make airflow-ends``; shown as a part of the page that explains it."""
MARKER: Final = re.compile(r"<!-- generated: ([\w ]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in (MkDocs calls this)."""
    return MARKER.sub(lambda found: PARTS[found[1]]() if found[1] in PARTS else found[0], markdown)


def connection_fields() -> str:
    """The extras of a connection."""
    from sparkbroker.airflow_provider._provider_info import CONN_FIELDS

    rows = [
        [f"`{name}`", field["label"], field["schema"]["type"][0], field.get("description", "")]
        for name, field in CONN_FIELDS.items()
    ]
    return _table(["extra", "in the form", "type", "meaning"], rows)


def compat_arguments() -> str:
    """Each argument of the predecessor and what it is here, a table for each of its classes."""
    from sparkbroker.airflow_provider.compat.arguments import ARGUMENTS

    rows: dict[str, list[list[str]]] = {}
    for argument in ARGUMENTS:
        of, _, name = argument.old.partition(".")
        new = "none" if argument.meaningless else argument.new
        shown = new if argument.meaningless or not new.isidentifier() else f"`{new}`"
        rows.setdefault(of, []).append([f"`{name}`", shown, argument.note])
    return "\n\n".join(f"### {of}\n\n{_table(['argument', 'here', ''], found)}" for of, found in rows.items())


def compat_conf() -> str:
    """The keys of ``spark_extra_conf`` that a lease has arguments for, and those that have no effect."""
    from sparkbroker.airflow_provider.compat.arguments import CONF_ARGUMENTS, CONF_WITHOUT_MEANING

    table = _table(["key", "here"], [[f"`{key}`", f"`{name}`"] for key, name in CONF_ARGUMENTS.items()])
    others = ", ".join(f"`{key}…`" if key.endswith(".") else f"`{key}`" for key in CONF_WITHOUT_MEANING)
    return f"{table}\n\nWithout effect, with a warning, unless they are above: {others}."


def measured_ends() -> str:
    """The page that the measurement has written, without its title; a sentence where there is none yet."""
    if not ENDS.exists():
        return "It has not been measured for this version yet."
    return re.sub(r"(?m)^#(?=# )", "##", ENDS.read_text().partition("\n")[2]).strip()


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "connection fields": connection_fields,
    "arguments of pysparkonk8s": compat_arguments,
    "conf of pysparkonk8s": compat_conf,
    "measured ends": measured_ends,
}
