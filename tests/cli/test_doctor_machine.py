"""What ``doctor`` says of class archives, disks and the clock."""

import fcntl
import json
from pathlib import Path

import pytest

from sparkbroker.broker.adapters.local_provisioner import discover
from sparkbroker.broker.adapters.local_provisioner._archive import archive_files
from sparkbroker.broker.cli import doctor_machine
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.lease.lease import ContainerSize, LeaseSpec


@pytest.fixture
def cache(tmp_path):
    made = tmp_path / "cache"
    (made / "archives").mkdir(parents=True)
    return made


@pytest.fixture
def examined(shell, cache):
    def look(what: str, **env: str) -> dict[str, str]:
        told = shell(
            "doctor", "-o", "json",
            SPARKBROKER__STORE__CLASS_ARCHIVES="true", SPARKBROKER__STORE__CACHE_FOLDER=str(cache), **env,
        )  # fmt: skip
        return next(finding for finding in json.loads(told.stdout) if finding["what"] == what)

    return look


@pytest.mark.spark
def test_a_class_archive_is_there_or_why_not(examined, cache):
    tools = discover(
        Profile(name="p", defaults=LeaseSpec(profile="p", queue="q", driver=ContainerSize(cores=1, memory=1 << 30)))
    )
    files = archive_files(cache, tools)
    what = "class archive of serve"
    assert examined(what)["found"].startswith("none yet")
    files.failed.write_text("the JVM wrote no archive\nand more\n")
    failed = examined(what)
    assert failed["status"] == "warn"
    assert failed["found"] == "it couldn't be made: the JVM wrote no archive"
    assert files.failed.name in failed["fix"]
    with (cache / "archives" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert examined(what)["found"].startswith("being made")
    files.archive.write_bytes(b"\0" * (2 << 20))
    files.size.write_text(str(2 << 20))
    if files.base is not None:
        files.base.touch()
    there = examined(what)
    assert there["status"] == "ok"
    assert there["found"].startswith(f"2 MiB, made by Java {tools.java.version} for Spark {tools.spark.version}")


def test_disks_and_clock(examined, tmp_path):
    assert examined("state folder")["found"].endswith(" free")
    scratch = examined("scratch folder", TMPDIR=str(tmp_path))
    assert scratch["found"].startswith(f"{tmp_path}: ")
    clock = examined("clock")
    assert clock["status"] in {"ok", "warn"}
    assert (clock["status"] == "ok") == (clock["fix"] == "")


def test_a_home_that_cant_be_written_is_no_reason_against_run():
    nowhere = Path("/proc/self/home")
    named, default = (doctor_machine._state_folder(nowhere, chosen=chosen) for chosen in (True, False))
    assert (named.status, default.status) == ("missing", "warn")
    assert named.found == default.found == "/proc/self can't be written"
    assert default.fix == named.fix + "; sparkbroker run does without"
