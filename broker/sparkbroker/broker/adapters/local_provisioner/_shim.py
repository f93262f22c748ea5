"""The small process between a broker and a driver: it outlives the broker, and says how the driver ended.

It is a session leader. It waits on its standard input for one line of JSON, the plan; the end of the input before that
ends it, so that a broker killed between fork and commit leaves nothing. Then it records itself, starts the driver,
waits for it, ends what the driver left behind, removes its scratch folder, records how it ended, and ends.

If the plan says ``embedded``, the end of the input at any time ends the driver too.

The secret part of the driver's environment comes through the pipe and is in no file and no argument.
"""

import json
import os
import select
import shutil
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sparkbroker.broker.adapters.local_provisioner import _logfile, _procfs
else:  # run as a file, without site-packages and without the package: its neighbours are beside it
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import _logfile
    import _procfs

_LOOK_AT_LOG = 10.0
_LONGEST_PLAN = 1 << 20
_ROUNDS = 500


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    plan = _read_plan()
    if plan is None:
        return
    folder: str = plan["folder"]
    me = _procfs.read_stat(os.getpid())
    if me is None:
        raise RuntimeError("/proc shows no process of this pid: it is not mounted, or not ours")
    record = {"boot_id": _procfs.boot_id(), "pid": me.pid, "start": me.start, "started": time.time()}
    _write(folder, "process.json", {**record, "driver_pid": 0, "driver_start": 0})
    child = _start(plan)
    status, oom_kills = 127 << 8, 0
    if child:
        stat = _procfs.read_stat(child)
        _write(folder, "process.json", {**record, "driver_pid": child, "driver_start": stat.start if stat else 0})
        status, oom_kills = _wait(child, plan, me)
    _end_others(plan, me)
    shutil.rmtree(plan["scratch"], ignore_errors=True)
    _write(folder, "exit.json", {"status": status, "oom_kills": oom_kills, "ended": time.time()})


def _read_plan() -> "dict[str, Any] | None":
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part or len(line) > _LONGEST_PLAN:
            return None
        line += part
    return json.loads(line)  # type: ignore[no-any-return]


def _write(folder: str, name: str, value: "dict[str, Any]") -> None:
    path = os.path.join(folder, name)
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def _start(plan: "dict[str, Any]") -> int:
    """The driver's pid; 0 if it can't be started, which the log then says."""
    log = os.open(os.path.join(plan["folder"], "driver.log"), os.O_WRONLY | os.O_CREAT, 0o600)
    os.lseek(log, 0, os.SEEK_END)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(plan["scratch"])
    nothing = os.open("/dev/null", os.O_RDONLY)
    if not plan["embedded"]:
        os.dup2(nothing, 0)
    actions = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    normal = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ]
    argv: list[str] = plan["argv"]
    try:
        return os.posix_spawn(argv[0], argv, plan["env"], file_actions=actions, setsigdef=normal)
    except OSError as error:
        os.write(2, f"{argv[0]} can't be started: {error}\n".encode())
        return 0


def _wait(child: int, plan: "dict[str, Any]", me: "_procfs.ProcessStat") -> "tuple[int, int]":
    """The driver's wait status, and the kernel's kills for want of memory in the last 10 to 20 seconds before its end.

    Meanwhile bound its log, and in an embedded broker's driver watch the pipe.
    """
    # The kernel counts those of the whole machine. A look back of one interval: a large process takes a while to end.
    before = recent = _procfs.oom_kills()
    poll = select.poll()
    poll.register(os.pidfd_open(child), select.POLLIN)
    if plan["embedded"]:
        poll.register(0, select.POLLIN)
    log = os.path.join(plan["folder"], "driver.log")
    while True:
        ready = poll.poll(_LOOK_AT_LOG * 1000)
        if any(descriptor == 0 for descriptor, _ in ready) and not os.read(0, 4096):
            poll.unregister(0)
            _end_others(plan, me)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, _procfs.oom_kills() - before
        before, recent = recent, _procfs.oom_kills()
        _logfile.bound(log, plan["log_limit"])


def _end_others(plan: "dict[str, Any]", me: "_procfs.ProcessStat") -> None:
    """End what is left of the driver but this process. Rounds: a process may fork while it is looked for."""
    for _ in range(_ROUNDS):
        found = _procfs.members(plan["owner"], plan["driver_id"], me.session, me.start)
        others = [process for process in found if process.pid != me.pid]
        if not others:
            return
        for process in others:
            _procfs.send_signal(process, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
