"""The Airflow pages agree with the provider: every argument is in its table, every generated table in a page."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from sparkbroker.airflow_provider.request import LEASE_ARGUMENTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference" / "airflow.md"
OPERATORS = ROOT / "airflow_provider" / "sparkbroker" / "airflow_provider" / "operators"


@pytest.fixture(scope="module")
def generate_airflow():
    path = DOCS / "generate_airflow.py"
    spec = importlib.util.spec_from_file_location("docs_generate_airflow", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages():
    return sorted(DOCS.rglob("*.md"))


def names_in(heading):
    """What the first column of the table below the heading names."""
    _, _, rest = REFERENCE.read_text().partition(f"\n## {heading}\n")
    assert rest, f"{REFERENCE.name} has no section {heading!r}"
    section = rest.partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def own_arguments(name):
    """Those that the operator's ``__init__`` declares, or that of its base; read, as Airflow isn't here."""
    trees = [ast.parse(path.read_text()) for path in OPERATORS.glob("*.py")]
    kinds = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    kind = kinds[name]
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in node.args.kwonlyargs]
    return own_arguments(ast.unparse(kind.bases[0]))


def test_each_generated_table_has_a_place_and_each_place_a_table(generate_airflow):
    found = [name for page in pages() for name in generate_airflow.MARKER.findall(page.read_text())]
    others = {"tests by promise"}
    assert sorted(set(found) - others) == sorted(generate_airflow.PARTS)
    assert len(found) == len(set(found))
    for name in generate_airflow.PARTS:
        made = generate_airflow.on_page_markdown(f"before\n\n<!-- generated: {name} -->\n")
        assert made.startswith("before\n\n")
        assert "<!--" not in made


def test_the_table_of_the_predecessor_names_each_argument(generate_airflow):
    from sparkbroker.airflow_provider.compat.arguments import ARGUMENTS, CONF_ARGUMENTS

    table, conf = generate_airflow.compat_arguments(), generate_airflow.compat_conf()
    for argument in ARGUMENTS:
        of, _, name = argument.old.partition(".")
        section = table.partition(f"### {of}\n")[2].partition("\n### ")[0]
        assert f"| `{name}` | " in section, argument.old
        assert not argument.note or argument.note in section, argument.old
    assert all(f"| `{key}` | `{name}` |" in conf for key, name in CONF_ARGUMENTS.items())


def test_the_reference_has_each_argument_of_a_lease_once():
    assert sorted(names_in("Arguments of a lease")) == sorted(LEASE_ARGUMENTS)


def test_the_reference_has_each_argument_of_every_operator():
    base = own_arguments("SparkLeaseOperator")
    assert names_in("Arguments of every operator") == [name for name in base if name not in LEASE_ARGUMENTS]


@pytest.mark.parametrize(
    "name", ["SparkSessionOperator", "SparkScriptOperator", "SparkSqlOperator", "ReleaseLeaseOperator"]
)
def test_the_reference_has_each_operators_own_arguments(name):
    (row,) = [line for line in REFERENCE.read_text().splitlines() if f".{name}` |" in line]
    for argument in own_arguments(name):
        assert f"`{argument}`" in row, f"{name}.{argument}"
