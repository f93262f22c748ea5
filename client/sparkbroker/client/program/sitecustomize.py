"""Run at its start by every Python that a lease's command starts: this folder is first on their PYTHONPATH.

It leads pyspark to the lease once a program imports it, and costs other programs nothing. It has to run in any Python 3,
beside any pyspark, with or without sparkbroker; the ``sitecustomize`` that it hides runs as if it weren't there.
"""

# mypy: ignore-errors
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

FOLDER = os.path.dirname(os.path.abspath(__file__))


class _UntilSpark:
    """Looks on until pyspark is imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "pyspark":
            sys.meta_path.remove(self)
            _lead()
        return None


def _lead():
    try:
        lead = _load("_program_lead").ProgramLead(os.environ)
        _load("_pyspark_hook").install(lead, later=True)
    except Exception as error:
        print(f"sparkbroker: pyspark can't be led to the lease here: {error!r}", file=sys.stderr)


def _load(name):
    file = os.path.join(os.path.dirname(FOLDER), name + ".py")
    spec = importlib.util.spec_from_file_location("_sparkbroker" + name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run_hidden():
    """The sitecustomize that would have been found without this folder."""
    path = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != FOLDER]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if os.environ.get("SPARKBROKER_PROGRAM"):
    sys.meta_path.insert(0, _UntilSpark())
_run_hidden()
