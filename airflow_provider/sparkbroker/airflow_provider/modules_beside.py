"""Which modules a DAG file imports from the folders of DAGs, where no driver has them. It reads their source, and runs nothing.

An import within a function counts, too: that function may run in Spark's Python. Modules that are found by other means than an
``import`` statement aren't seen, nor those that aren't Python source.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Final
from zipimport import zipimporter

_NOT_BESIDE: Final = frozenset({"airflow", "pyspark", "sparkbroker"})
"""Packages that may be in a folder of DAGs (a checkout), and are installed where they are needed, or can't be."""
AIRFLOWS: Final = frozenset({"airflow", "sparkbroker"})
"""Packages that a worker has, and a driver hasn't."""
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module: its name, where it is below the folder that holds its outermost package, and its bytes.

    ``loads`` are the modules that importing it imports, also those that are installed.
    """

    name: str
    path: str
    text: bytes
    loads: frozenset[str]


def beside(file: str, folders: Sequence[str]) -> dict[str, Source]:
    """The modules that this file reaches, by name, without the file itself: those that Python would load from ``folders``.

    A file that can't be read or has a syntax error reaches nothing.
    """
    finder = _Finder(tuple(Path(folder).resolve() for folder in folders))
    spec = ModuleSpec("__dag__", None, origin=file)
    try:
        text = Path(file).read_bytes()
    except OSError:
        text = _zipped(file)
    finder.follow(_imports(text, spec.name, is_package=False))
    return {name: source for name, source in finder.found.items() if source is not None}


def need_airflow(sources: dict[str, Source]) -> frozenset[str]:
    """Those whose import brings Airflow, which fails in a driver."""
    found = {name for name, source in sources.items() if _outermost(source.loads) & AIRFLOWS}
    while more := {name for name, source in sources.items() if name not in found and source.loads & found}:
        found |= more
    return frozenset(found)


class _Finder:
    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self.found: dict[str, Source | None] = {}

    def follow(self, imported: Iterator[tuple[str, bool]]) -> None:
        """Find these, and all that they import."""
        waiting = [name for name, _ in imported]
        while waiting:
            name = waiting.pop()
            if name.partition(".")[0] in _NOT_BESIDE | sys.stdlib_module_names:
                continue
            waiting += self._find(name)

    def _find(self, name: str) -> list[str]:
        """Find it and its packages; what those of them import that weren't known."""
        path: Sequence[str] | None = None
        parts = name.split(".")
        more: list[str] = []
        for place, part in enumerate(parts, 1):
            spec = PathFinder.find_spec(part, path)  # by its last name: an outer package need not be imported for it
            if spec is None:
                break
            full = ".".join(parts[:place])
            if full not in self.found:
                source = self.found[full] = self._source(spec, full)
                more += () if source is None else [name for name, _ in _of(source, spec)]
            path = spec.submodule_search_locations
            if path is None:
                break
        return more

    def _source(self, spec: ModuleSpec, name: str) -> Source | None:
        origin, loader = spec.origin, spec.loader
        if not origin or not origin.endswith(".py") or not self._is_beside(origin):
            return None
        if not isinstance(loader, SourceFileLoader | zipimporter):
            return None
        try:
            text = loader.get_data(origin)
        except OSError:
            return None
        is_package = spec.submodule_search_locations is not None
        loads = {load for load, at_once in _imports(text, name, is_package=is_package) if at_once}
        outer = {name[:dot] for dot, letter in enumerate(name) if letter == "."}
        path = name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
        return Source(name=name, path=path, text=text, loads=frozenset(loads | outer))

    def _is_beside(self, origin: str) -> bool:
        path = Path(origin).resolve()
        return not _INSTALLED.intersection(path.parts) and any(path.is_relative_to(folder) for folder in self._folders)


def _of(source: Source, spec: ModuleSpec) -> Iterator[tuple[str, bool]]:
    return _imports(source.text, source.name, is_package=spec.submodule_search_locations is not None)


def _imports(text: bytes, name: str, *, is_package: bool) -> Iterator[tuple[str, bool]]:
    """What the source of that module imports: a module's full name (or one of something in it), and whether at once."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        node, at_once = waiting.pop()
        if isinstance(node, ast.If) and _is_for_type_checkers(node.test):
            waiting += [(child, at_once) for child in node.orelse]
            continue
        for full in _named(node, name if is_package else name.rpartition(".")[0]):
            outer = [full[:dot] for dot, letter in enumerate(full) if letter == "."]
            yield from ((each, at_once) for each in (*outer, full))
        inside = at_once and not isinstance(node, _FUNCTIONS)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*outer, *filter(None, [node.module])])
        if base:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_for_type_checkers(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _outermost(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.partition(".")[0] for name in names)


def _zipped(file: str) -> bytes:
    """The text of a DAG file in an archive; empty: there is none."""
    import zipfile  # noqa: PLC0415  only where DAGs are packaged

    archive, mark, inner = file.partition(".zip/")
    try:
        with zipfile.ZipFile(archive + mark.removesuffix("/")) as packed:
            return packed.read(inner)
    except (OSError, KeyError, zipfile.BadZipFile):
        return b""
