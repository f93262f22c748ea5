"""SQLite, killed and starved for real: what was acknowledged is there, and no half of a batch is."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("writing_program.py")


def command(mode: str, *arguments: object) -> list[str]:
    return [sys.executable, str(PROGRAM), mode, *map(str, arguments)]


def facts(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.endswith("}")]


def run(*arguments: str) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return facts(done.stdout), done.stderr


def check_contents(shown: dict[str, Any], acknowledged: int) -> None:
    """Whole batches up to some number, which is at least the last acknowledged one."""
    last = shown["revision"]
    assert last >= acknowledged
    assert shown["serving"] == last
    assert shown["events"] == list(range(1, last + 1))
    expected = {f"{number}-{part}": [number, number] for number in range(1, last + 1) for part in ("first", "second")}
    if last:
        expected["counter"] = [last, last]
    assert shown["rows"] == expected


@pytest.mark.promise(6)
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    """20 kills at random points under load, one after the other over the same file."""
    folder = tmp_path / "state"
    chance = random.Random(20)
    acknowledged = 0
    for _ in range(20):
        with subprocess.Popen(
            command("write", folder, chance.choice([10, 3000])), stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            enough = chance.randrange(1, 60)
            told = [writer.stdout.readline() for _ in range(enough)]
            writer.kill()
            told.append(writer.stdout.read())  # acknowledged between the last line and the kill
        known = [fact["acknowledged"] for fact in facts("".join(told)) if "acknowledged" in fact]
        acknowledged = max([acknowledged, *known])
    (shown,), _ = run(*command("show", folder))
    assert acknowledged > 20
    check_contents(shown, acknowledged)


def in_small_file_system(need, folder: Path, size: str, *program: str) -> tuple[list[dict[str, Any]], str]:
    """Run it with ``folder`` as a tmpfs of its own, in a mount namespace that goes with it."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    permitted = (
        shutil.which("unshare")
        and subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    )
    need(permitted, "a mount namespace (unshare --mount): root, or user namespaces")
    folder.mkdir()
    script = 'mount -t tmpfs -o "size=$1,mode=0700" tmpfs "$2" && shift 2 && exec "$@"'
    return run(*namespace, "sh", "-c", script, "sh", size, str(folder), *program)


def test_a_full_disk_frees_the_ballast_and_then_stops_the_broker(need, tmp_path):
    folder = tmp_path / "disk"
    told, log = in_small_file_system(need, folder, "2m", *command("fill", folder))
    held, *acknowledged, refused, freed, no_database, no_folder, shown = told
    assert held["ballast"] >= 256 << 10
    assert freed["ballast"] == 0
    assert log.count("store.ballast_freed") == 1
    assert refused["refused"] == "Unknown"
    assert "full" in refused["message"]
    assert "free some space" in refused["message"]
    for fact in (no_database, no_folder):
        assert "is full; free some space" in fact["unusable"]
    check_contents(shown, acknowledged[-1]["acknowledged"])


def test_a_full_disk_has_no_room_for_anything_new_until_it_is_freed(need, tmp_path):
    folder = tmp_path / "disk"
    (full, scarce, restarted, freed), log = in_small_file_system(need, folder, "8m", *command("room", folder))
    for fact in (full, scarce, restarted):
        assert "is full: leases can be used and released, and none be asked for; free some space" in fact["full"]
    assert full["again"] == full["full"]
    assert bool(full["use"]) == (full["ballast"] < 512 << 10), "half of it is kept for ends"
    assert "is full: leases can be renewed and released; free some space" in scarce["use"]
    assert restarted["ballast"] <= scarce["ballast"] < 512 << 10
    assert freed["full"] == ""
    assert freed["ballast"] >= 1 << 20
    assert log.count("store.ballast_set_aside") == 1


def test_on_a_full_disk_what_is_large_can_end_however_fast_others_take_what_is_freed(need, tmp_path):
    """The rows are still in the WAL when the disk gets full: the database needs their room before the WAL is used again."""
    folder = tmp_path / "disk"
    (ended, shown), log = in_small_file_system(need, folder, "64m", *command("end", folder))
    assert "is full: leases can be used and released" in ended["full"]
    assert ended["left"] >= 4 << 20
    assert shown["revision"] == 1100
    assert shown["sizes"] == [len('"small"')]
    assert shown["left"] > 0, "a start takes little"
    assert "store.failed" not in log


def test_a_read_only_disk_is_said_to_be_so(need, tmp_path):
    folder = tmp_path / "disk"
    told, _ = in_small_file_system(need, folder, "2m", *command("read-only", folder))
    assert len(told) == 3
    for fact in told:
        assert "is read-only" in fact["unusable"]


BIG = 1_000_000  # a batch of four such bodies is 500 pages: the fifth begins a checkpoint


@pytest.fixture
def run_with_failing_fsync(need, tmp_path):
    """Run the program; the given fsync of its writing thread fails with EIO, and only that one."""

    def start(when: int, *program: str) -> tuple[list[dict[str, Any]], str]:
        inject = f"inject=fsync,fdatasync:error=EIO:when={when}"
        strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", "trace=fsync,fdatasync", "-e", inject]
        works = (
            shutil.which("strace")
            and subprocess.run([*strace, "true"], capture_output=True, check=False).returncode == 0
        )
        need(works, "strace, and leave to trace")
        told, log = run(*strace, *program)
        assert (tmp_path / "trace").read_text().count("(INJECTED)") == 1
        return told, log

    return start


@pytest.mark.parametrize(("size", "when"), [(10, 10), (10, 25), (BIG, 14), (BIG, 15), (BIG, 16)])
def test_after_a_failed_fsync_nothing_more_is_written(run_with_failing_fsync, tmp_path, size, when):
    """In a commit, or in a checkpoint. SQLite itself would go on; the broker may not."""
    folder = tmp_path / "state"
    told, log = run_with_failing_fsync(when, *command("write", folder, size))
    leading, *acknowledged, refused = told
    assert leading == {"leading": 1}
    assert refused["refused"] == "Unknown"
    assert "disk I/O error (SQLITE_IOERR_FSYNC)" in refused["message"]
    assert "store.failed" in log
    assert acknowledged
    (shown,), _ = run(*command("show", folder))
    check_contents(shown, acknowledged[-1]["acknowledged"])


@pytest.mark.parametrize("when", [1, 4, 7, 8])
def test_a_failed_fsync_while_it_is_made_or_led_is_said(run_with_failing_fsync, tmp_path, when):
    folder = tmp_path / "state"
    (unusable,), _ = run_with_failing_fsync(when, *command("write", folder, 10))
    assert re.search(r"(disk I/O|Input/output) error.*; check the disk", unusable["unusable"])
    (shown,), _ = run(*command("show", folder))
    check_contents(shown, 0)
