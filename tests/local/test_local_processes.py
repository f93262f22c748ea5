"""The shim and the process control, with small processes."""

# A test may wait for its own helpers as it likes: its loop serves nobody else.
# ruff: noqa: ASYNC220, ASYNC221, ASYNC240

import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.local_provisioner import LaunchPlan, SmallLauncher, _procfs
from sparkbroker.broker.adapters.local_provisioner._folder import Folder, Process
from sparkbroker.broker.adapters.local_provisioner._scratch import find_scratch
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.provisioner import Phase


@pytest.mark.promise(5)
async def test_delete_takes_children_that_left_the_session_and_ignore_sigterm(machine, small):
    local = await machine.provisioner()
    await machine.ready(local, machine.request("d1", small(children=2)))
    assert len(machine.processes("d1")) == 4  # shim, driver, two children
    assert machine.scratches()
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")
    assert not machine.scratches()


async def test_a_driver_that_ignores_sigterm_is_killed_after_the_grace(machine, small):
    local = await machine.provisioner(grace=0.1)
    await machine.ready(local, machine.request("d1", small(deaf=1)))
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")


async def test_its_own_end_is_told_with_status_and_last_lines(machine, small):
    local = await machine.provisioner()
    await local.create(machine.request("d1", small(exit=7)))
    seen = await machine.until(local, "d1", Phase.EXITED)
    assert seen.exit is not None
    assert seen.exit.exit_code == 7
    assert seen.exit.log_tail == ("ending as told",)
    assert not machine.scratches()


async def test_sigkill_of_the_driver_is_told_with_the_signal(oom_kills, machine, small, kill):
    local = await machine.provisioner()
    seen = await machine.ready(local, machine.request("d1", small(children=1)))
    kill(seen.handle["driver_pid"])
    seen = await machine.until(local, "d1", Phase.EXITED)
    assert seen.exit is not None
    assert (seen.exit.exit_code, seen.exit.signal, seen.exit.out_of_memory) == (None, "SIGKILL", False)
    assert not machine.processes("d1")


@pytest.mark.promise(5)
async def test_sigkill_of_the_shim_leaves_the_driver_ready_and_its_end_unknown(machine, small, kill):
    local = await machine.provisioner()
    seen = await machine.ready(local, machine.request("d1", small(children=1)))
    kill(seen.handle["pid"])
    await local.wait_for_change()
    assert (await local.observe("d1", {}, machine.ids["d1"])).phase is Phase.READY
    kill(seen.handle["driver_pid"])
    seen = await machine.until(local, "d1", Phase.EXITED)
    assert seen.exit is not None
    assert (seen.exit.exit_code, seen.exit.signal) == (None, "")
    assert not machine.processes("d1")
    assert not machine.scratches()


@pytest.mark.promise(7)
async def test_a_stopped_driver_is_not_absent(machine, small):
    local = await machine.provisioner()
    seen = await machine.ready(local, machine.request("d1"))
    for pid in machine.processes("d1"):
        os.kill(pid, signal.SIGSTOP)
    assert (await local.observe("d1", {}, machine.ids["d1"])).phase is Phase.READY
    other = await machine.provisioner()
    assert [found.phase for found in await other.inventory()] == [Phase.READY]
    await other.delete("d1", seen.handle, force=True)
    await machine.until(other, "d1", Phase.ABSENT)
    assert not machine.processes("d1")


async def test_however_many_have_ended_an_inventory_reads_all_processes_once(machine, small, kill, monkeypatch):
    local = await machine.provisioner()
    for name in ("d1", "d2", "d3"):
        seen = await machine.ready(local, machine.request(name, small(children=1)))
        kill(seen.handle["driver_pid"])
        await machine.until(local, name, Phase.EXITED)
    await machine.ready(local, machine.request("d4"))
    reads = 0
    every = _procfs.all_processes

    def counted():
        nonlocal reads
        reads += 1
        return every()

    monkeypatch.setattr(_procfs, "all_processes", counted)
    other = await machine.provisioner()
    found = {seen.driver_id: seen.phase for seen in await other.inventory()}
    assert found == {"d1": Phase.EXITED, "d2": Phase.EXITED, "d3": Phase.EXITED, "d4": Phase.READY}
    assert reads == 1


@pytest.mark.promise(6)
async def test_an_orphan_without_a_folder_is_found_with_its_charge_and_removed(machine, small):
    local = await machine.provisioner()
    request = machine.request("d1")
    await machine.ready(local, request)
    subprocess.run(["rm", "-r", machine.folder / "drivers" / "d1"], check=True)
    other = await machine.provisioner()
    found = await other.inventory()
    assert [(seen.driver_id, seen.phase, seen.resources) for seen in found] == [("d1", Phase.STOPPING, request.target)]
    await other.delete("d1", {}, force=False)
    await machine.until(other, "d1", Phase.ABSENT)
    assert not machine.processes("d1")


@pytest.mark.promise(6)
async def test_what_is_another_brokers_is_not_touched(machine, small):
    ours, theirs = await machine.provisioner(), await machine.provisioner(key=b"x" * 32)
    await machine.ready(ours, machine.request("d1"))
    before = machine.processes("d1")
    subprocess.run(["mv", machine.folder / "drivers" / "d1", machine.folder / "aside"], check=True)
    assert await theirs.inventory() == []
    await theirs.delete("d1", {}, force=True)
    assert machine.processes("d1") == before
    subprocess.run(["mv", machine.folder / "aside", machine.folder / "drivers" / "d1"], check=True)


async def test_a_pid_that_is_somebody_elses_now_is_not_touched(machine, small):
    local = await machine.provisioner()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        folder = Folder(machine.folder / "drivers" / "d1")
        request = machine.request("d1")
        await machine.ready(local, request)
        await local.delete("d1", {}, force=True)
        await machine.until(local, "d1", Phase.ABSENT)
        (folder.path / "stop.json").unlink()
        (folder.path / "exit.json").unlink(missing_ok=True)
        old = folder.read(Process)
        assert old is not None
        forged = {name: getattr(old, name) for name in old.__struct_fields__}
        forged.update(pid=stranger.pid, driver_pid=stranger.pid)
        folder.write_bytes("process.json", str(forged).replace("'", '"').encode())
        seen = await local.observe("d1", {}, machine.ids["d1"])
        assert seen.phase is Phase.EXITED
        await local.delete("d1", {}, force=True)
        assert stranger.poll() is None
        stranger.communicate(b"\n")


async def test_an_earlier_boots_processes_are_dead(machine, small):
    local = await machine.provisioner()
    await local.create(machine.request("d1", small(exit=0)))
    await machine.until(local, "d1", Phase.EXITED)
    path = machine.folder / "drivers" / "d1" / "process.json"
    path.write_text(path.read_text().replace(_procfs.boot_id(), "another-boot"))
    (path.parent / "exit.json").unlink()
    seen = await local.observe("d1", {}, machine.ids["d1"])
    assert seen.phase is Phase.EXITED
    assert seen.exit is not None
    assert seen.exit.exit_code is None


@pytest.mark.promise(11)
async def test_the_token_is_in_no_file_argument_or_log_and_opens_only_its_driver(machine, small):
    local = await machine.provisioner()
    seen = await machine.ready(local, machine.request("d1", small(children=1)))
    await machine.ready(local, machine.request("d2"))
    endpoints = [await local.endpoint(name, {}, machine.ids[name]) for name in ("d1", "d2")]
    token = endpoints[0].headers["authorization"].removeprefix("Bearer ").encode()
    with (machine.folder / "drivers" / "d1" / "driver.log").open("ab") as log:
        log.write(b"oops " + token + b"\n")
    for pid in machine.processes("d1"):
        assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert token not in repr(seen).encode()
    for path in (machine.folder / "drivers").rglob("*"):
        if path.is_file() and path.name != "driver.log":
            assert token not in path.read_bytes(), path
            assert path.stat().st_mode & 0o077 == 0, path
    for offset in range(40):
        chunks = local.logs("d1", {}, offset=offset, tail_lines=0, follow=False)
        assert token[30:] not in b"".join([chunk.data async for chunk in chunks])
    server = spark_connect.Server(
        target=endpoints[1].endpoint[5:-1], headers=endpoints[0].headers, user_id=endpoints[0].user_id
    )
    with pytest.raises(spark_connect.ConnectCallFailed) as refusal:
        await spark_connect.probe(server, 5.0)
    assert refusal.value.code == "UNAUTHENTICATED"


async def test_a_server_that_answers_no_call_is_not_ready(machine, small):
    local = await machine.provisioner()
    await local.create(machine.request("d1", small(mute=1)))
    seen = await machine.until(local, "d1", Phase.PORT_OPEN, Phase.READY)
    assert seen.phase is Phase.PORT_OPEN
    with pytest.raises(ProvisionerFailed):
        await local.endpoint("d1", {}, machine.ids["d1"])


async def test_an_executable_that_is_missing_is_told(machine, small):
    class Nothing(SmallLauncher):
        async def plan(self, request, place, done):
            return LaunchPlan(argv=("/no/such/java",), environment={})

    local = await machine.provisioner(Nothing())
    await local.create(machine.request("d1"))
    seen = await machine.until(local, "d1", Phase.EXITED)
    assert seen.exit is not None
    assert seen.exit.exit_code == 127
    assert "/no/such/java can't be started" in seen.exit.log_tail[0]


@pytest.mark.parametrize("at", range(4))
async def test_a_cancelled_create_can_be_repeated(machine, small, at):
    local = await machine.provisioner()
    request = machine.request("d1")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(local.create(request))
        for _ in range(at):
            await asyncio.sleep(0)
        task.cancel()
    await machine.ready(local, request)
    assert len(machine.processes("d1")) == 2


BROKER = """
import asyncio, os, sys
sys.path.insert(0, {tests!r})
from conftest import Machine, size
from pathlib import Path
async def main():
    machine = Machine(Path({folder!r}))
    local = await machine.provisioner(embedded={embedded})
    if {wait}:
        await machine.ready(local, machine.request("d1", size(children=1)))
    else:
        from sparkbroker.broker.adapters.local_provisioner._driver import LocalDriver
        def stay(self, child, pipe, plan, *, keep_pipe):
            self.child, self.kept = child, pipe
        LocalDriver.launched = stay
        await local.create(machine.request("d1"))
    print("made", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def broker(machine, *, embedded: bool, wait: bool) -> None:
    """One that has made d1, or its shim, and was killed then."""
    code = BROKER.format(tests=str(Path(__file__).parent), folder=str(machine.folder), embedded=embedded, wait=wait)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"made\n"
        while not machine.processes("d1"):  # it is being executed, and shows no environment yet
            assert process.poll() is None
        machine.request("d1")
    finally:
        process.stdout.close()
        process.kill()
        process.wait()


@pytest.mark.promise(6)
@pytest.mark.parametrize(("embedded", "wait"), [(True, True), (True, False), (False, False)])
async def test_kill_of_an_embedded_broker_or_before_go_leaves_nothing(machine, embedded, wait):
    broker(machine, embedded=embedded, wait=wait)
    local = await machine.provisioner()
    await machine.until(local, "d1", Phase.ABSENT, Phase.EXITED)
    assert not machine.processes("d1")


@pytest.mark.promise(4)
async def test_kill_of_a_broker_leaves_its_drivers_ready_for_the_next(machine, small):
    broker(machine, embedded=False, wait=True)
    local = await machine.provisioner()
    assert [seen.phase for seen in await local.inventory()] == [Phase.READY]
    assert len(machine.processes("d1")) == 3
    await local.delete("d1", {}, force=False)
    await machine.until(local, "d1", Phase.ABSENT)
    assert not machine.processes("d1")


async def test_closing_an_embedded_broker_ends_its_drivers(machine, small):
    local = await machine.provisioner(embedded=True)
    await machine.ready(local, machine.request("d1", small(children=1)))
    await local.close()
    assert not machine.processes("d1")


@contextlib.contextmanager
def no_descriptor_left():
    """This process can't open another file, and nothing left over gives it one."""
    gc.collect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("method", ["inventory", "create", "observe", "endpoint", "end_session", "logs", "forget"])
async def test_a_process_without_descriptors_says_so(machine, method):
    provisioner, request, other = await machine.provisioner(), machine.request("d1"), machine.request("d2")
    await machine.ready(provisioner, request)
    name, profile = request.driver_id, request.profile

    async def logs():
        async for _ in provisioner.logs(name, {}, offset=0, tail_lines=5, follow=False):
            pass

    calls = {
        "inventory": provisioner.inventory,
        "create": lambda: provisioner.create(other),
        "observe": lambda: provisioner.observe(name, {}, profile),
        "endpoint": lambda: provisioner.endpoint(name, {}, profile),
        "end_session": lambda: provisioner.end_session(name, {}, profile, "s"),
        "logs": logs,
        "forget": lambda: provisioner.forget(name),
    }
    with no_descriptor_left(), pytest.raises(ProvisionerFailed, match="Too many open files") as caught:
        await calls[method]()
    assert caught.value.retryable


async def test_a_driver_whose_records_cannot_be_read_holds_up_no_look_at_the_others(machine, small):
    """Code that runs in a driver can write there: it is this user."""
    local = await machine.provisioner()
    await machine.ready(local, machine.request("d1", small()))
    await machine.ready(local, machine.request("d2", small()))
    record = machine.folder / "drivers" / "d1" / "ready.json"
    kept = record.read_bytes()
    record.write_bytes(b"\xff nothing")
    dead = machine.folder / "drivers" / "d3"
    dead.mkdir()
    (dead / "intent.json").write_bytes(b"{}")
    found = {seen.driver_id: seen for seen in await local.inventory()}
    assert found["d2"].phase is Phase.READY
    assert found["d1"].phase is Phase.STOPPING
    assert found["d1"].resources == found["d2"].resources
    assert "d3" not in found
    record.write_bytes(kept)


def test_a_scratch_folder_that_somebody_else_has_taken_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wanted = tmp_path / f"sparkbroker-{os.getuid()}"
    assert find_scratch("own") == wanted
    wanted.rmdir()
    wanted.symlink_to("/somebody")
    assert find_scratch("own") == tmp_path / f"{wanted.name}-own"
    assert find_scratch("own") == tmp_path / f"{wanted.name}-own", "a restart finds it again"
    (tmp_path / f"{wanted.name}-own").rmdir()
    (tmp_path / f"{wanted.name}-own").write_text("taken")
    last = find_scratch("own")
    assert last.parent == tmp_path
    assert last.stat().st_mode & 0o7777 == 0o700
