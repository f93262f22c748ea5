"""The shape of the repository: what would break installs, leak or mislead, and what no tool checks."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("airflow_provider", "broker", "client", "protos")

# Split, so that this file doesn't hold what it looks for.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("index", "crates", "io"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
        ("registry-1", "docker", "io"),
    )
)


@pytest.fixture(scope="module")
def files(need) -> list[Path]:
    """The files that are, or would be, committed."""
    need((ROOT / ".git").exists(), "a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_no_init_hides_the_other_roots_of_the_namespace(root):
    namespace = ROOT / root / "sparkbroker"
    assert namespace.is_dir()
    assert not (namespace / "__init__.py").exists(), "it would hide the other roots: sparkbroker is a PEP 420 namespace"


@pytest.mark.parametrize(
    "root", ["airflow_provider/sparkbroker/airflow_provider", "broker/sparkbroker/broker", "client/sparkbroker/client"]
)
def test_every_folder_of_a_package_says_what_it_is(root):
    for folder in [ROOT / root, *(ROOT / root).rglob("*/")]:
        if "migrations" in folder.parts:  # Alembic runs these as scripts.
            continue
        if (folder / "sitecustomize.py").exists():  # An entry of PYTHONPATH, not a package.
            continue
        if any(folder.glob("*.py")):
            init = folder / "__init__.py"
            assert init.exists(), f"{folder.relative_to(ROOT)} has no __init__.py"
            assert ast.get_docstring(ast.parse(init.read_text())), f"{init.relative_to(ROOT)} has no docstring"


def test_the_roots_make_one_namespace():
    for name in ("sparkbroker.broker", "sparkbroker.client", "sparkbroker.v1.broker_pb2"):
        importlib.import_module(name)
    import sparkbroker

    assert getattr(sparkbroker, "__file__", None) is None


def test_packages_and_editable_install_name_the_same_roots():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert sorted(build["dev-mode-dirs"]) == sorted(SOURCE_ROOTS)
    assert sorted(build["targets"]["wheel"]["packages"]) == sorted(f"{root}/sparkbroker" for root in SOURCE_ROOTS)


def test_the_client_imports_without_what_only_the_broker_needs():
    """The thin client's promise: grpcio and protobuf, and no Spark until a session is opened."""
    listing = "import sys, sparkbroker.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    heavy = {
        "pyspark",
        "pandas",
        "pyarrow",
        "numpy",
        "msgspec",
        "pydantic",
        "structlog",
        "typer",
        "rich",
        "sqlalchemy",
        "uvloop",
    }
    assert not heavy & set(done.stdout.split())
    assert "sparkbroker" in done.stdout.split()


def test_the_provider_uses_only_what_is_public_of_the_client():
    private = re.compile(r"sparkbroker\.client(?:\._\w+| import \(?_\w+)")
    for path in (ROOT / "airflow_provider").rglob("*.py"):
        found = [name for name in private.findall(path.read_text()) if "__version__" not in name]
        assert not found, f"{path.relative_to(ROOT)} uses {', '.join(found)}"


def test_locks_pin_everything_with_hashes_and_name_no_index():
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text()
        entries = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        assert entries, lock.name
        for entry in entries:
            assert re.match(r"[a-z0-9._-]+(\[[a-z,-]+\])?==\S+", entry), f"{lock.name}: {entry} is not pinned"
        assert text.count("    --hash=sha256:") >= len(entries)
        assert "://" not in text, f"{lock.name} names a host"


def test_the_demo_lock_is_part_of_the_development_lock():
    def pins(name):
        return {line.rstrip(" \\") for line in (ROOT / "requirements" / name).read_text().splitlines() if "==" in line}

    assert pins("local.txt") <= pins("dev.txt")


def test_no_file_names_a_registry(files):
    for path in files:
        content = path.read_bytes()
        for host in REGISTRIES:
            assert host.encode() not in content, f"{path.relative_to(ROOT)} names {host}"


def test_scripts_can_be_run(files):
    for path in files:
        content = path.read_bytes()
        if content.startswith(b"#!"):
            assert os.access(path, os.X_OK), f"{path.relative_to(ROOT)} starts with #! and is not executable"


def test_links_between_documents_lead_somewhere(files, docs_generate):
    link = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)\s#]+)")
    for path in files:
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in link.findall(text):
            found = (path.parent / target).resolve()
            generated = (
                found.is_relative_to(ROOT / "docs") and str(found.relative_to(ROOT / "docs")) in docs_generate.PAGES
            )
            assert generated or found.exists(), f"{path.relative_to(ROOT)} links to {target}, which isn't there"


def test_every_decision_has_a_number_of_its_own_and_is_listed():
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [path.name[:4] for path in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    index = (ROOT / "docs" / "adr" / "index.md").read_text()
    for path in records:
        assert path.name in index, f"docs/adr/index.md doesn't list {path.name}"


def test_commands_that_the_readme_names_exist():
    named = set(
        re.findall(r"^\s*(?:\$ )?make ([a-z -]+?)\s*(?:#.*)?$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    )
    assert named
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for command in named:
        assert set(command.split()) <= targets, f"make {command}"
