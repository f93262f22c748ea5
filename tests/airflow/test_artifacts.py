"""The files that a task brings: found beside the DAG or in the working folder, or named in an error."""

import pytest

from sparkbroker.airflow_provider import artifacts
from sparkbroker.airflow_provider.request import InvalidArgument, Options, options


def test_files_are_found_beside_the_dag_first(tmp_path, monkeypatch):
    (tmp_path / "dags").mkdir()
    for path in ("dags/both.py", "both.py", "here.py", "dags/env.zip"):
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    found = artifacts.find(
        Options(
            py_files=("both.py", "here.py", "s3a://bucket/far.py"),
            files=(str(tmp_path / "here.py"),),
            archives=("env.zip#env",),
        ),
        str(tmp_path / "dags"),
    )
    assert found == artifacts.Artifacts(
        py_files=(str(tmp_path / "dags/both.py"), str(tmp_path / "here.py"), "s3a://bucket/far.py"),
        files=(str(tmp_path / "here.py"),),
        archives=(f"{tmp_path}/dags/env.zip#env",),
    )
    assert found
    assert not artifacts.find(Options(), "")


@pytest.mark.parametrize("argument", ["py_files", "files", "archives"])
def test_one_that_is_not_there_is_named(tmp_path, argument):
    with pytest.raises(
        InvalidArgument, match=rf"{argument}: there is no 'no\.zip' beside the DAG \(.*\) or on this worker"
    ):
        artifacts.find(options({argument: ["no.zip#x"]}), str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"files: there is no '/no/where' on this worker; give a file that every"):
        artifacts.find(Options(files=("/no/where",)), str(tmp_path))
