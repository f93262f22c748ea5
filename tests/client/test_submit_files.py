"""Paths that spark-submit's lists can have, and copies of files that have others."""

from pathlib import Path

import pytest

from sparkbroker.client.submit_files import listable, special_character


@pytest.mark.parametrize("folder", ["a%20b", "a#b", "what?", "2026-01-01T00:00:00", "a,b", "[a]", "{a}", "a*", "a\\b"])
def test_a_file_in_a_folder_that_a_list_can_not_have_is_copied(tmp_path, folder):
    (tmp_path / folder / "inner").mkdir(parents=True)
    (tmp_path / folder / "ä b.csv").write_text("it")
    (tmp_path / folder / "inner" / "x").write_text("in it")
    copy = listable(str(tmp_path / folder / "ä b.csv"), tmp_path)
    assert (Path(copy).name, Path(copy).read_text(), special_character(copy)) == ("ä b.csv", "it", "")
    assert (Path(listable(str(tmp_path / folder / "inner"), tmp_path)) / "x").read_text() == "in it"


def test_other_files_stay_where_they_are(tmp_path):
    assert listable("/a b/ä-1.0_x+y=z@h.csv", tmp_path) == "/a b/ä-1.0_x+y=z@h.csv"


@pytest.mark.parametrize("name", ["a:b", "a#b", "a%b"])
def test_a_name_that_a_copy_would_have_too_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"whose name has '{name[1]}' in it \('{name}'\); rename it"):
        listable(f"/x/{name}", tmp_path)
