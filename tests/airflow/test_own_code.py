"""What of a DAG's own code travels to Spark's Python, and how."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparkbroker.airflow_provider import modules_beside, own_code

pytest.importorskip("pyspark")
from pyspark import cloudpickle

DAG = """
import math, helper_of_a_test as h
from pieces_of_a_test.deep.leaf import leaf
from needs_airflow_of_a_test import seven
def triple(x): return x * 3
def run(x):
    from lazy_of_a_test import lazy
    return lazy(x)
"""
FILES = {
    "dag.py": DAG,
    "helper_of_a_test.py": "import threading\nLOCK = threading.Lock()\ndef five(x):\n    with LOCK: return x * 5\n",
    "pieces_of_a_test/deep/leaf.py": "from ..top import TOP\ndef leaf(x): return x + TOP\n",
    "pieces_of_a_test/top.py": "TOP = 10\n",
    "needs_airflow_of_a_test.py": "from airflow.models import Variable\nfrom helper_of_a_test import five\ndef seven(x): return five(x) + 2\n",
    "lazy_of_a_test.py": "def lazy(x): return -x\n",
    "never_of_a_test.py": "",
    "for_checkers_of_a_test.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from airflow.models import Variable\n",
    "broken_of_a_test.py": "def (",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in [name for name in sys.modules if name not in before and name.partition(".")[0].endswith("_of_a_test")]:
        del sys.modules[name]


@pytest.fixture
def dag(folder):
    """The DAG's file, loaded as Airflow does: under a name that nobody else knows."""
    name = "unusual_prefix_0123_dag_of_a_test"
    spec = importlib.util.spec_from_file_location(name, folder / "dag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def reached(folder, text):
    (folder / "dag.py").write_text(text)
    return set(modules_beside.beside(str(folder / "dag.py"), [str(folder)]))


def test_the_modules_are_those_that_the_file_reaches_from_its_folders(folder):
    sources = modules_beside.beside(str(folder / "dag.py"), [str(folder)])
    assert set(sources) == {
        "helper_of_a_test", "pieces_of_a_test.deep.leaf", "pieces_of_a_test.top", "needs_airflow_of_a_test", "lazy_of_a_test",
    }  # fmt: skip
    assert modules_beside.need_airflow(sources) == {"needs_airflow_of_a_test"}
    assert modules_beside.beside(str(folder / "dag.py"), ["/elsewhere"]) == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import pieces_of_a_test.top", {"pieces_of_a_test.top"}),
        ("from pieces_of_a_test import top as t", {"pieces_of_a_test.top"}),
        ("try:\n    import lazy_of_a_test\nexcept ImportError:\n    pass", {"lazy_of_a_test"}),
        ("import broken_of_a_test", {"broken_of_a_test"}),
        ("import numpy, airflow, pyspark, json, not_there", set()),
        ("def (", set()),
        ("\ufeff# -*- coding: utf-8 -*-\nimport lazy_of_a_test", {"lazy_of_a_test"}),
    ],
)
def test_each_kind_of_import_is_read_and_nothing_is_run(folder, text, names):
    assert reached(folder, text) == names
    assert not any(name.endswith("_of_a_test") for name in sys.modules)


def test_what_only_type_checkers_import_is_not_needed(folder):
    assert (
        modules_beside.need_airflow(modules_beside.beside(str(folder / "for_checkers_of_a_test.py"), [str(folder)]))
        == set()
    )


def test_what_is_installed_in_a_folder_of_dags_stays_there(folder, monkeypatch):
    installed = folder / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "installed_of_a_test.py").write_text("")
    monkeypatch.syspath_prepend(str(installed))
    assert reached(folder, "import installed_of_a_test") == set()


class Session:
    """Takes what a classic session takes, and does to ``sys.path`` what that does."""

    def __init__(self):
        self.sparkContext = self
        self.sent = []

    def addPyFile(self, path):  # noqa: N802  its name in pyspark
        self.sent.append((path, Path(path).read_bytes()))
        sys.path.insert(1, path)


UNPICKLE = """
import pickle, sys
sys.modules["airflow"] = None
sys.path.insert(1, sys.argv[1])
print([function(4) for function in pickle.loads(sys.stdin.buffer.read())])
"""


def test_functions_run_where_neither_the_dag_nor_airflow_is(dag, folder, tmp_path):
    session = Session()
    before, path = cloudpickle.list_registry_pickle_by_value(), list(sys.path)
    described = SimpleNamespace(fileloc=dag.__file__)
    with own_code.brought(session, described, None):
        functions = [dag.triple, dag.leaf, dag.seven, dag.run, lambda x: dag.h.five(x) + 1]
        pickled = cloudpickle.dumps(functions)
        assert sys.path == path
        with own_code.brought(session, described, None):
            pass
        assert cloudpickle.dumps(functions) == pickled, "another session has ended"
    assert (cloudpickle.list_registry_pickle_by_value(), sys.path) == (before, path)
    (one, content), (other, again) = session.sent
    assert (one.rpartition("/")[2], content) == (other.rpartition("/")[2], again), "the same code is the same file"
    archive = tmp_path / "sent.zip"
    archive.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-P", "-c", UNPICKLE, str(archive)],
        input=pickled,
        capture_output=True,
        check=True,
        cwd="/",
        timeout=60,
    )
    assert done.stdout.decode().strip() == "[12, 14, 22, -4, 21]"


def test_what_somebody_else_has_registered_stays(dag):
    cloudpickle.register_pickle_by_value(dag)
    with own_code.brought(Session(), SimpleNamespace(fileloc=dag.__file__), None):
        pass
    assert dag.__name__ in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(dag)


def test_more_than_can_be_sent_is_told(dag, monkeypatch, caplog):
    monkeypatch.setattr(own_code, "_MOST", 10)
    session = Session()
    with own_code.brought(session, SimpleNamespace(fileloc=dag.__file__), None):
        pass
    assert session.sent == []
    assert "modules beside the DAG can't be used in Spark's Python" in caplog.text


def test_a_packaged_dag_brings_what_is_packed_with_it(folder, tmp_path, monkeypatch):
    import zipfile

    packed = tmp_path / "pack.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("dag_of_a_test.py", "import inside_of_a_test")
        archive.writestr("inside_of_a_test.py", "X = 1")
    monkeypatch.syspath_prepend(str(packed))
    from sparkbroker.airflow_provider._compat import code_folders

    file = f"{packed}/dag_of_a_test.py"
    assert set(modules_beside.beside(file, code_folders(file, None))) == {"inside_of_a_test"}
