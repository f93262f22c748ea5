"""Runs a notebook with parameters, and keeps it with its results."""

import sys
from pathlib import Path

import papermill

source, target, *given = sys.argv[1:]
Path(target).parent.mkdir(parents=True, exist_ok=True)
parameters = {name: int(value) for name, _, value in (item.partition("=") for item in given)}
papermill.execute_notebook(
    source,
    target,
    parameters=parameters,
    progress_bar=False,
    kernel_name="python3",
    stdout_file=sys.stdout,
    stderr_file=sys.stderr,
)
print(f"kept as {target}")
