"""pyspark is told exactly the file that is meant, whatever its path looks like."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql.connect.client.artifact import ArtifactManager

from sparkbroker.client.artifact_urls import archive_url, artifact_url, path_of

NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
NAME = NAME.filter(lambda name: name not in (".", "..") and len(name.encode()) < 100)


def _read_by_pyspark(url: str, **kind: bool) -> tuple[str, str]:
    """The name that Spark is told, and the file that is read."""
    manager: ArtifactManager = ArtifactManager.__new__(ArtifactManager)
    (artifact,) = manager._parse_artifacts(url, **{"pyfile": False, "archive": False, "file": False, **kind})
    return artifact.path, artifact.storage.path


@given(folder=NAME, name=NAME)
@example(folder="a%20b", name="x.txt")
@example(folder="a#b", name="x?y.txt")
@example(folder="c:", name="a;b")
@example(folder="a\nb", name="ä☃\t+ %zz")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pyspark_reads_exactly_this_file(tmp_path, folder, name):
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert _read_by_pyspark(artifact_url(path), file=True) == (f"files/{name}", str(path))
    assert path_of(artifact_url(path)) == str(path)


def test_a_relative_path_is_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c:x.py").touch()
    assert _read_by_pyspark(artifact_url("c:x.py"), pyfile=True) == ("pyfiles/c:x.py", f"{tmp_path}/c:x.py")
    assert artifact_url("//tmp/x") == "file:///tmp/x"


def test_an_archive_is_unpacked_under_its_name_or_refused(tmp_path):
    path = tmp_path / "a%20b" / "env?.zip"
    path.parent.mkdir()
    path.touch()
    assert _read_by_pyspark(archive_url(path), archive=True) == ("archives/env?.zip", str(path))
    assert _read_by_pyspark(archive_url(path, "env-1"), archive=True) == ("archives/env?.zip#env-1", str(path))
    assert "%23" in archive_url("/a#b/env.zip")  # a folder's is none of the name
    for wrong in (("/a/env#.zip", ""), ("/a#b/env.zip", "env"), ("/a/env.zip", "../x"), ("/a/env.zip", "a\nb")):
        with pytest.raises(ValueError, match=r"rename it|letters, digits"):
            archive_url(*wrong)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a%20b/m.py", "/a b/m.py"),
        ("file:/a%23b", "/a#b"),
        ("file://localhost/a;b%3F", "/a;b?"),
        ("FILE:///é", "/é"),
    ],
)
def test_a_url_is_a_path(url, path):
    assert path_of(url) == path


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///a#b", "more than a path"),
        ("file:///a?b", "more than a path"),
        ("file://host/a", "machine 'host'"),
        ("file:a", "no absolute path"),
        ("file:///a%00", "no absolute path"),
        ("file:///a b", "%20"),
        ("file:///a\nb", "characters"),
        ("http://h/a", "not a file: URL"),
    ],
)
def test_a_url_that_names_no_file_says_so(url, problem):
    with pytest.raises(ValueError, match=problem):
        path_of(url)


def test_a_name_that_no_message_can_hold_is_refused():
    with pytest.raises(ValueError, match="isn't UTF-8"):
        artifact_url(os.fsdecode(b"/a\xff/m.py"))
