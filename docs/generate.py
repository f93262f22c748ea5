"""The reference, generated from what it is about: the protocol, the configuration, the command line, the errors.

A MkDocs hook (``mkdocs.yml``). Each page is made by one function from the code itself, so that it can't be out of date;
a page whose source can't be read is an error. Tests use ``promise_tests`` and ``PAGES`` as well.
"""

import ast
import importlib
import inspect
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
BROKER: Final = ROOT / "broker" / "sparkbroker" / "broker"
SHORT: Final = 8
"""Longer defaults stand under their table."""
TESTS_MARKER: Final = "<!-- generated: tests by promise -->"


class SourceMissing(Exception):
    """What a page is generated from isn't there, or not in the form that is known."""


# ---- MkDocs


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages (MkDocs calls this)."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of tests into the page of promises (MkDocs calls this)."""
    return markdown.replace(TESTS_MARKER, promises_table()) if TESTS_MARKER in markdown else markdown


# ---- promises


def promise_tests(tests: Path) -> dict[int, list[str]]:
    """Promise number -> ``tests/file.py::name`` of the functions and classes that carry it, read without running them."""
    found: dict[int, list[str]] = {}
    for path in sorted(tests.rglob("*.py")):
        tree = ast.parse(path.read_text(), filename=str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                numbers = {number for decorator in node.decorator_list for number in _promises(decorator)}
            elif isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets):
                numbers = set(_promises(node.value))
            else:
                continue
            name = f"{path.relative_to(tests.parent)}{'' if isinstance(node, ast.Assign) else '::' + node.name}"
            for number in numbers:
                found.setdefault(number, []).append(name)
    return found


def _promises(node: ast.expr) -> Iterator[int]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.promise":
            yield from (arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, int))


def promises_table() -> str:
    """Which tests carry which promise."""
    tests = promise_tests(ROOT / "tests")
    rows = [
        [str(number), "<br>".join(f"`{name}`" for name in tests.get(number, [])) or "none yet"]
        for number in range(1, 16)
    ]
    return _table(["promise", "tests that carry it"], rows)


# ---- the protocol


def api_page() -> str:
    """Services, messages and enums with the comments of the .proto files, by way of buf."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run(
        [buf, "build", "--as-file-descriptor-set", "-o", "-"], cwd=ROOT, capture_output=True, check=False
    )
    if built.returncode:
        raise SourceMissing(f"buf build: {built.stderr.decode()}")
    files = [
        file for file in FileDescriptorSet.FromString(built.stdout).file if file.package.startswith("sparkbroker.")
    ]
    parts = [
        "# API",
        "",
        "Package `sparkbroker.v1`, generated from `protos/sparkbroker/v1/`. Errors: see [errors](errors.md).",
    ]
    for file in files:
        comments = {tuple(at.path): _comment(at.leading_comments) for at in file.source_code_info.location}
        for i, service in enumerate(file.service):
            parts += ["", f"## {service.name}", "", comments.get((6, i), "")]
            for j, method in enumerate(service.method):
                takes, gives = _stream(method.client_streaming), _stream(method.server_streaming)
                signature = f"{takes}{_type_link(method.input_type)} → {gives}{_type_link(method.output_type)}"
                parts += ["", f"### {method.name}", "", signature, "", comments.get((6, i, 2, j), "")]
        parts += ["", f"## Messages of {Path(file.name).stem}"]
        for i, message in enumerate(file.message_type):
            parts += ["", f"### {message.name}", "", comments.get((4, i), ""), *_fields(message, comments, (4, i))]
        parts += ["", f"## Enums of {Path(file.name).stem}"] if file.enum_type else []
        for i, enumeration in enumerate(file.enum_type):
            rows = [
                [f"`{v.name}`", str(v.number), comments.get((5, i, 2, j), "")] for j, v in enumerate(enumeration.value)
            ]
            parts += [
                "",
                f"### {enumeration.name}",
                "",
                comments.get((5, i), ""),
                "",
                _table(["value", "number", ""], rows),
            ]
    return "\n".join(parts) + "\n"


def _comment(text: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in text.splitlines()).strip()


def _fields(message: Any, comments: dict[tuple[int, ...], str], at: tuple[int, ...]) -> list[str]:
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = []
    for i, field in enumerate(message.field):
        entry = maps.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            shown = f"map&lt;{_field_type(entry.field[0])}, {_field_type(entry.field[1])}&gt;"
        else:
            shown = ("repeated " if field.label == field.LABEL_REPEATED else "") + _field_type(field)
        rows.append([f"`{field.name}`", shown, comments.get((*at, 2, i), "")])
    return ["", _table(["field", "type", ""], rows)] if rows else []


def _field_type(field: Any) -> str:
    if field.type_name:
        return _type_link(field.type_name)
    return str(type(field).Type.Name(field.type)).removeprefix("TYPE_").lower()


def _type_link(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(".sparkbroker.") else short


def _stream(streams: object) -> str:
    return "stream of " if streams else ""


# ---- the configuration


def configuration_page() -> str:
    """Every section and field of the configuration file, from its pydantic models."""
    from pydantic import BaseModel

    module = _module("sparkbroker.broker.config")
    root = getattr(module, "Config", None)
    if not (isinstance(root, type) and issubclass(root, BaseModel)):
        raise SourceMissing("sparkbroker.broker.config has no pydantic model named Config")
    parts = [
        "# Configuration",
        "",
        "One TOML file; `sparkbroker serve --check-config` says what is wrong with it. `SPARKBROKER__SECTION__KEY` in the",
        "environment overrides a key. Everything has a default. Generated from the models that validate the file.",
    ]
    parts += ["", _kinds()]
    seen: set[type] = set()
    pending: list[tuple[str, type[BaseModel]]] = [("", root)]
    while pending:
        path, model = pending.pop(0)
        if model in seen:
            continue
        seen.add(model)
        parts += ["", f"## {f'`[{path}]`' if path else 'Top level'}", ""]
        parts += [_text(inspect.getdoc(model)), ""] if path else []
        rows = []
        for name, field in model.model_fields.items():
            nested = _models(field.annotation)
            pending += [(_section(path, name, field.annotation), inner) for inner in nested]
            written, meaning = _written(model, name)
            rows.append([f"`{name}`", f"`{written}`", _default(field, written), _text(field.description or meaning)])
        parts.append(_table(["key", "type", "default", "meaning"], rows))
        for name, field in model.model_fields.items():
            if isinstance(field.default, tuple) and len(field.default) > SHORT:
                parts += ["", f"Default of `{name}`: " + ", ".join(f"`{item}`" for item in field.default) + "."]
    return "\n".join(parts) + "\n"


def _kinds() -> str:
    """How values are written, by the names that the tables use."""
    rows = [
        ["`Duration`", 'text such as `"30s"`, `"5m"`, `"1h30m"`, `"250ms"`; or a number of seconds'],
        ["`Memory`", 'Spark\'s notation: `"2g"`, `"1536m"`; a bare number is MiB'],
        ["`Cpu`", 'cores, also in parts: `"8"`, `"0.5"`, `"500m"`'],
        ["`Cores`", "whole cores"],
        ["`Name`", "lower-case letters, digits, `.`, `_` and `-`"],
        ["`Label`", "a label's value in Kubernetes: letters, digits, `-`, `_` and `.`, at most 63"],
        ["`Listen`", "`unix:/absolute/path` or `tcp://host:port`"],
    ]
    return _table(["type", "written as"], rows)


def _written(model: type, name: str) -> tuple[str, str]:
    """A field's annotation as it stands in the source, and the docstring under it; from the class that declares it."""
    for owner in model.__mro__:
        module = sys.modules[owner.__module__]
        if name in vars(owner).get("__annotations__", {}):
            tree = ast.parse(inspect.getsource(module))
            body = next(
                node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner.__name__
            )
            for member, after in zip(body, [*body[1:], None], strict=True):
                if isinstance(member, ast.AnnAssign) and ast.unparse(member.target) == name:
                    return ast.unparse(member.annotation), _docstring(after)
    return "", ""


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _section(path: str, key: str, annotation: object) -> str:
    keyed = any(typing.get_origin(part) is dict for part in [annotation, *typing.get_args(annotation)])
    return ".".join(part for part in (path, key, "NAME" if keyed else "") if part)


def _models(annotation: object) -> list[Any]:
    """The models within a type, however deep."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _default(field: Any, written: str) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or _models(type(value)) or value in ({}, (), [], ""):
        return ""
    if "Duration" in written:
        return f"`{value:g}s`"
    if "Memory" in written:
        from sparkbroker.broker.domain.capacity.resources import format_memory

        return f"`{format_memory(value)}`"
    if isinstance(value, tuple) and len(value) > SHORT:
        return f"{len(value)} of them, below"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# ---- the command line


def cli_page() -> str:
    """Every command with its options, and the exit codes, from the Typer application."""
    import typer

    app = getattr(_module("sparkbroker.broker.cli.main"), "app", None)
    codes = getattr(_module("sparkbroker.broker.cli.exit_codes"), "EXIT_CODES", None)
    if not isinstance(app, typer.Typer) or not isinstance(codes, dict):
        raise SourceMissing("sparkbroker.broker.cli has no Typer application `main.app`, or no `exit_codes.EXIT_CODES`")
    parts = ["# Command line", "", "Generated from the program; `sparkbroker COMMAND --help` says the same."]
    parts += _command(typer.main.get_command(app), "sparkbroker", 2)
    rows = [[f"`{code}`", meaning] for code, meaning in codes.items()]
    parts += [
        "",
        "## Exit codes",
        "",
        "Of `run`, every other status is the command's own.",
        "",
        _table(["status", "meaning"], rows),
    ]
    return "\n".join(parts) + "\n"


def _command(command: Any, path: str, level: int) -> list[str]:
    parts = ["", f"{'#' * level} `{path}`", "", inspect.cleandoc(command.help or "")]
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        names = (
            [*parameter.opts, *parameter.secondary_opts]
            if parameter.param_type_name == "option"
            else [(parameter.metavar or parameter.name).upper()]
        )
        rows.append([", ".join(f"`{name}`" for name in names), getattr(parameter, "help", None) or ""])
    if rows:
        parts += ["", _table(["argument", ""], rows)]
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if not inner.hidden:
            parts += _command(inner, f"{path} {name}", min(level + 1, 4))
    return parts


# ---- errors and metrics


def errors_page() -> str:
    """Every error that a caller can get: reason, gRPC status, meaning."""
    import grpc

    from sparkbroker.broker.domain.errors import BrokerError

    codes = _module("sparkbroker.broker.rpc.errors")
    table: dict[type[BrokerError], Any] = {}
    for value in vars(codes).values():
        if (
            isinstance(value, dict)
            and value
            and all(isinstance(key, type) and issubclass(key, BrokerError) for key in value)
        ):
            table.update(value)
    if not table:
        raise SourceMissing("sparkbroker.broker.rpc.errors has no table from error class to status")
    rows = []
    for error in sorted(table, key=lambda kind: kind.reason):
        status = table[error]
        while not isinstance(status, grpc.StatusCode) and isinstance(status, tuple) and status:
            status = status[0]
        rows.append(
            [f"`{error.reason}`", f"`{getattr(status, 'name', status)}`", _text(inspect.getdoc(error)).split("\n\n")[0]]
        )
    lead = (
        "Every error carries a `google.rpc.ErrorInfo` whose `reason` is the first column; the message says what was wrong "
        "and what would be right. Where waiting helps, a `google.rpc.RetryInfo` says how long. What gRPC itself refuses has "
        "neither: an unknown method (UNIMPLEMENTED), a message of more than 256 KiB (RESOURCE_EXHAUSTED)."
    )
    shown = _table(["reason", "gRPC status", "meaning"], rows)
    return f"# Errors\n\n{lead}\n\n## The broker's\n\n{shown}\n\n## The client's\n\n{_client_errors()}\n"


def _client_errors() -> str:
    """Every exception of ``sparkbroker.client``: its base, its meaning."""
    module = _module("sparkbroker.client._errors")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    if not kinds:
        raise SourceMissing("sparkbroker.client._errors has no exceptions")
    lead = (
        "All are in `sparkbroker.client`, and all errors are `SparkbrokerError`s: with `message`, and the broker's `reason`, "
        "`metadata` and `retry_after` where it told them."
    )
    rows = [
        [f"`{kind.__name__}`", f"`{kind.__base__.__name__ if kind.__base__ else ''}`", _text(inspect.getdoc(kind))]
        for kind in kinds
    ]
    return "\n".join([lead, "", _table(["class", "is a", "meaning"], rows)])


METRIC_KINDS: Final = frozenset({"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"})


def metrics_page() -> str:
    """Every Prometheus metric: name, kind, labels, meaning; read from the code that makes it."""
    rows = []
    for path in sorted(BROKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            kind = ast.unparse(node.func).rpartition(".")[2].removesuffix("MetricFamily")
            texts = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if kind in METRIC_KINDS and len(texts) == 2:
                names = _labels(node)
                rows.append([f"`{texts[0]}`", kind.lower(), ", ".join(f"`{name}`" for name in names), texts[1]])
    if not rows:
        raise SourceMissing("no Prometheus metric is made in broker/")
    lead = "Served in the Prometheus text format where the configuration says so. Generated from the code."
    return "\n".join(["# Metrics", "", lead, "", _table(["metric", "kind", "labels", ""], sorted(rows))]) + "\n"


def _labels(call: ast.Call) -> list[str]:
    given = [*call.args[2:3], *(keyword.value for keyword in call.keywords if keyword.arg in {"labelnames", "labels"})]
    lists = [group.elts for group in given if isinstance(group, ast.List | ast.Tuple)]
    return [str(item.value) for items in lists for item in items if isinstance(item, ast.Constant)]


# ---- shared


def _module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SourceMissing(f"{name} can't be imported: {error}") from error


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: reStructuredText's literals have two backticks."""
    return (docstring or "").replace("``", "`")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/api.md": api_page,
    "reference/configuration.md": configuration_page,
    "reference/cli.md": cli_page,
    "reference/errors.md": errors_page,
    "reference/metrics.md": metrics_page,
}
