"""Spark's configuration as ``spark-submit`` takes it: ``--conf K=V`` and properties files.

What says a size is lifted into the request: the broker sizes drivers, and refuses such keys as configuration.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sparkbroker.broker.cli.exit_codes import USAGE, Exit
from sparkbroker.client.file_text import NotText, decode

MAX_FILE: Final = 4 << 20
_LINE: Final = re.compile(r"(?P<key>(?:[^\s=:\\]|\\.)+)(?:\s*[=:]\s*|\s+)(?P<value>.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

LIFTED: Final = {
    "spark.driver.cores": "cores",
    "spark.driver.memory": "memory",
    "spark.driver.memoryOverhead": "memory_overhead",
    "spark.executor.cores": "executor_cores",
    "spark.executor.memory": "executor_memory",
    "spark.executor.memoryOverhead": "executor_memory_overhead",
    "spark.executor.instances": "executors",
    "spark.jars.packages": "packages",
    "spark.jars": "jars",
    "spark.submit.pyFiles": "py_files",
}
"""Key -> the argument of ``sparkbroker.client.Ask`` (or of ``run``) that it is."""
_NUMBERS: Final = {"cores", "executor_cores", "executors"}
_LISTS: Final = {"packages", "jars", "py_files"}


def parse_assignments(items: Iterable[str]) -> dict[str, str]:
    """``--conf K=V``, repeated; the last of a key wins. Raise Exit."""
    conf = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise Exit(USAGE, f"--conf: {item!r} is not K=V; write --conf spark.sql.shuffle.partitions=8")
        conf[key.strip()] = value.strip()
    return conf


def read_properties(path: Path) -> dict[str, str]:
    """A properties file as ``spark-submit`` reads it (java.util.Properties; values are trimmed). Raise Exit."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise Exit(USAGE, f"--properties-file: {path} can't be read: {error.strerror}") from error
    if len(content) > MAX_FILE:
        raise Exit(USAGE, f"--properties-file: {path} is larger than {MAX_FILE >> 20} MiB")
    try:
        text = decode(content)
    except NotText as error:
        raise Exit(USAGE, f"--properties-file: {path} {error}; save it as UTF-8") from error
    return parse_properties(text)


def parse_properties(text: str) -> dict[str, str]:
    """The pairs of ``key value``, ``key=value`` and ``key: value`` lines, with comments, escapes and continued lines."""
    conf = {}
    for line in _logical_lines(text):
        match = _LINE.fullmatch(line)
        key, value = (match["key"], match["value"]) if match else (line, "")
        conf[_unescape(key)] = _unescape(value).strip()
    return conf


def _logical_lines(text: str) -> Iterable[str]:
    pending = ""
    for raw in re.split(r"\r\n|\r|\n", text):
        line = raw.lstrip()
        if not pending and (not line or line[0] in "#!"):
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending += line[:-1]
            continue
        yield pending + line
        pending = ""
    if pending:
        yield pending


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(replace, text)


def lift(conf: Mapping[str, str]) -> tuple[dict[str, object], dict[str, str]]:
    """(arguments of the request, the configuration that is left). Raise Exit for a size that isn't a number."""
    arguments: dict[str, object] = {}
    rest = {}
    for key, value in conf.items():
        name = LIFTED.get(key)
        if name is None:
            rest[key] = value
        elif name in _LISTS:
            arguments[name] = [part.strip() for part in value.split(",") if part.strip()]
        elif name in _NUMBERS:
            if not re.fullmatch(r"[0-9]{1,9}", value):
                raise Exit(USAGE, f"{key}: {value!r} is not a whole number")
            arguments[name] = int(value)
        else:
            arguments[name] = value
    return arguments, rest
