"""Class archives, made by a real JVM: in the background at the first need, and never in the way."""

# A test may wait for its own helpers as it likes: its loop serves nobody else.
# ruff: noqa: ASYNC110

import asyncio
import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.adapters.local_provisioner import ArchiveState, SparkLauncher, class_archive, discover
from sparkbroker.broker.adapters.local_provisioner._archive import Archives, archive_files
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.ports.provisioner import Phase

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]


def is_mapped(pid: object, archive: Path) -> bool:
    """Whether the JVM of this process uses the archive: the kernel says what it has mapped."""
    return str(archive) in Path(f"/proc/{pid}/maps").read_text()


def hurry(cache: Path) -> None:
    """Its maker has the lowest priority, and on a busy machine a test has no time for that."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"_train" in command and os.fsencode(cache) in command:
                os.sched_setscheduler(int(entry.name), os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, int(entry.name), 0)


async def until(state: ArchiveState, cache: Path, tools) -> Path:
    async with asyncio.timeout(500):
        while (found := class_archive(cache, tools)).state is not state:
            assert found.state is not ArchiveState.FAILED, found
            await asyncio.sleep(0.05)
    return found.path


async def test_it_is_made_in_the_background_once_and_anew_when_it_is_damaged(machine, small):
    cache = machine.folder / "cache"
    launcher = SparkLauncher(cache, SystemClock(), archives=True)
    local = await machine.provisioner(launcher)
    request = machine.request("d1", small(512 << 20))
    tools = discover(request.profile)
    assert class_archive(cache, tools).state is ArchiveState.MISSING
    first = await machine.ready(local, request)
    archive = class_archive(cache, tools).path
    assert not is_mapped(first.handle["driver_pid"], archive)
    await until(ArchiveState.BUILDING, cache, tools)
    hurry(cache)
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert await until(ArchiveState.THERE, cache, tools) == archive
    made = archive.stat()

    second = await machine.ready(local, machine.request("d2", small(512 << 20)))
    assert is_mapped(second.handle["driver_pid"], archive)
    await local.delete("d2", {}, force=True)
    await machine.until(local, "d2", Phase.ABSENT)
    launcher.driver_ready()
    assert archive.stat().st_ino == made.st_ino, "it was made again"

    os.truncate(archive, made.st_size // 2)
    third = await machine.ready(local, machine.request("d3", small(512 << 20)))
    assert not is_mapped(third.handle["driver_pid"], archive)
    await until(ArchiveState.BUILDING, cache, tools)


QUERIES_THAT_GO_ON = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from sparkbroker.broker.adapters.local_provisioner import _train
from sparkbroker.broker.ports.provisioner import ConnectEndpoint

_train.QUERIES = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
tools = SimpleNamespace(python=SimpleNamespace(executable=sys.executable))
endpoint = ConnectEndpoint(endpoint="sc://127.0.0.1:1", headers={"authorization": "Bearer x"}, user_id="u")
_train._run_queries(endpoint, tools, Path("."))
"""


@pytest.mark.promise(6)
def test_its_queries_end_with_whoever_makes_it():
    with subprocess.Popen([sys.executable, "-P", "-c", QUERIES_THAT_GO_ON], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        queries = os.pidfd_open(int(maker.stdout.readline()))
        maker.kill()
    assert select.select([queries], [], [], 30)[0], "the queries go on"
    os.close(queries)


def test_it_belongs_to_one_build_of_the_jvm_and_one_class_path(machine, tmp_path):
    tools = discover(machine.request("d1").profile)
    name = archive_files(tmp_path, tools).archive
    assert archive_files(tmp_path, tools).archive == name
    more = tmp_path / "more.jar"
    more.write_bytes(b"a")
    spark, java = tools.spark, tools.java
    longer = msgspec.structs.replace(spark, jars=(*spark.jars, str(more)))
    other = archive_files(tmp_path, msgspec.structs.replace(tools, spark=longer)).archive
    more.write_bytes(b"bc")
    changed = archive_files(tmp_path, msgspec.structs.replace(tools, spark=longer)).archive
    turned = msgspec.structs.replace(spark, jars=spark.jars[::-1])
    reordered = archive_files(tmp_path, msgspec.structs.replace(tools, spark=turned)).archive
    rebuilt = msgspec.structs.replace(java, build=java.build + "x")
    another = archive_files(tmp_path, msgspec.structs.replace(tools, java=rebuilt)).archive
    assert len({name, other, changed, reordered, another}) == 5


async def test_one_that_cannot_be_made_is_said_and_not_tried_at_each_start(machine, tmp_path):
    """Its maker's Java is none: it fails at once, and a day passes before the next attempt."""
    broken = tmp_path / "java"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
    (broken / "bin" / "java").chmod(0o700)
    tools = discover(machine.request("d1").profile)
    tools = msgspec.structs.replace(tools, java=msgspec.structs.replace(tools.java, home=str(broken)))
    archives, now = Archives(tmp_path / "cache"), SystemClock().wall()
    assert archives.options(tools, now) == ()
    archives.build_wanted()
    async with asyncio.timeout(100):
        while (found := class_archive(tmp_path / "cache", tools)).state is not ArchiveState.FAILED:
            await asyncio.sleep(0.05)
        while archives.building:
            await asyncio.sleep(0.05)
    assert found.why
    assert found.log is not None
    archives.options(tools, now)
    archives.build_wanted()
    assert not archives.building
    archives.options(tools, now + 25 * 3600)
    archives.build_wanted()
    again = archives.building
    await archives.close()
    assert again
