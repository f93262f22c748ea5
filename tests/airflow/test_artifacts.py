"""The files that a task brings: found beside the DAG or in the working folder, or named in an error."""

from pathlib import Path

import pytest

from sparkbroker.airflow_provider import artifacts
from sparkbroker.airflow_provider.artifacts import Archive, Artifacts
from sparkbroker.airflow_provider.operators.script import _listable, _merged
from sparkbroker.airflow_provider.request import InvalidArgument, Options, options
from sparkbroker.client import submit_files


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
        archives=(Archive(f"{tmp_path}/dags/env.zip", "env"),),
    )
    assert found
    assert not artifacts.find(Options(), "")


STRANGE = ("a%20b", "a#b", "a?b", "a b", "ä☃", "c:", "a\nb", "a;b", "a%zz")


@pytest.mark.parametrize("name", STRANGE)
def test_a_path_is_no_url_whatever_it_looks_like(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for file in ("m.py", "x.zip"):
        (tmp_path / name / file).touch()
    module, archive = f"{name}/m.py", f"{name}/x.zip"
    url = artifacts.url_of(str(tmp_path / module))
    found = artifacts.find(
        Options(py_files=(module, url), files=(module,), archives=(archive, f"{archive}#env")), "/no"
    )
    path = f"{tmp_path}/{module}"
    assert (found.py_files, found.files) == ((path, path), (path,))
    assert found.archives == (Archive(f"{tmp_path}/{archive}"), Archive(f"{tmp_path}/{archive}", "env"))


class Session:
    """Says what it was given."""

    def __init__(self):
        self.added = []
        self.sparkContext = self

    def addArtifacts(self, *urls, **kind):  # noqa: N802
        self.added.append((*kind, *urls))

    def addPyFile(self, path):  # noqa: N802
        self.added.append(("pyfile", path))

    def addFile(self, path, recursive):  # noqa: N802
        self.added.append(("file", path, recursive))

    def addArchive(self, path):  # noqa: N802
        self.added.append(("archive", path))


BROUGHT = Artifacts(
    py_files=("/a%20b/m.py", "/a#b/m.py", "s3a://b/m.py"),
    files=("/a#b",),
    archives=(Archive("/a?b/x.zip", "env"), Archive("s3a://b/x.zip", "far")),
)


def test_spark_is_told_exactly_these_files(monkeypatch):
    classic = Session()
    artifacts.add(classic, BROUGHT)
    assert classic.added == [
        ("pyfile", "/a%20b/m.py"),
        ("pyfile", "file:///a%23b/m.py"),
        ("pyfile", "s3a://b/m.py"),
        ("file", "file:///a%23b", False),
        ("archive", "file:///a%3Fb/x.zip#env"),
        ("archive", "s3a://b/x.zip#far"),
    ]
    connect = Session()
    monkeypatch.setattr(artifacts, "is_connect", lambda spark: True)
    artifacts.add(connect, BROUGHT)
    assert connect.added == [
        ("pyfile", "file:///a%2520b/m.py", "file:///a%23b/m.py", "s3a://b/m.py"),
        ("file", "file:///a%23b"),
        ("archive", "file:///a%3Fb/x.zip#env", "s3a://b/x.zip#far"),
    ]
    with pytest.raises(InvalidArgument, match=r"^archives: '/x#y.zip': Spark takes .* for a folder; rename it$"):
        artifacts.add(connect, Artifacts(archives=(Archive("/x#y.zip"),)))


def test_a_program_with_a_local_lease_is_given_copies(tmp_path):
    strange = tmp_path / "a%20#b? 2026-01-01T00:00"
    strange.mkdir()
    (strange / "ä b.zip").write_text("it")
    place = str(strange / "ä b.zip")
    copy = _listable(place, "files", tmp_path)
    assert (Path(copy).name, Path(copy).read_text()) == ("ä b.zip", "it")
    assert not submit_files.special_character(copy)
    for as_it_is in ("/a b/ä.zip", "s3a://b/a%20b"):
        assert _listable(as_it_is, "files", tmp_path) == as_it_is
    for name in ("a#b", "a:b"):
        with pytest.raises(InvalidArgument, match=rf"^files: spark-submit can't be given .*'{name}'.*; rename it$"):
            _listable(f"/x/{name}", "files", tmp_path)


def test_what_spark_or_python_can_not_be_told_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match=r"py_files: .*//host/x.py' names a file of the machine 'host'; write"):
        artifacts.find(Options(py_files=("file://host/x.py",)), "")
    with pytest.raises(InvalidArgument, match=r"files: there is no '/a.x00b' on this worker"):
        artifacts.find(Options(files=("/a\0b",)), "")
    with pytest.raises(InvalidArgument, match=r"py_files: '/c:/m.zip' has a ':', which separates"):
        _merged({}, {}, ["/c:/m.zip"])


@pytest.mark.parametrize(
    ("argument", "said"), [("py_files", "no.zip#x"), ("files", "no.zip#x"), ("archives", "no.zip")]
)
def test_one_that_is_not_there_is_named(tmp_path, argument, said):
    with pytest.raises(
        InvalidArgument, match=rf"{argument}: there is no '{said}' beside the DAG \(.*\) or on this worker"
    ):
        artifacts.find(options({argument: ["no.zip#x"]}), str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"files: there is no '/no/where' on this worker; give a file that every"):
        artifacts.find(Options(files=("/no/where",)), str(tmp_path))
