"""Commands, their output for people and programs, and their exit statuses."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from sparkbroker.broker.adapters.static_tokens import load
from sparkbroker.broker.cli import doctor_output, output
from sparkbroker.broker.cli.doctor_finding import Finding, Status
from sparkbroker.client import Broker, __version__
from sparkbroker.v1 import broker_pb2 as pb

pytestmark = pytest.mark.timeout(120)


def test_help_and_completion_are_light():
    code = (
        "import sys\n"
        "from sparkbroker.broker.cli.main import app\n"
        "heavy = {'grpc', 'pydantic', 'google', 'pyspark', 'msgspec', 'asyncpg', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_version_is_told_both_ways(shell):
    assert shell("--version").stdout == shell("version").stdout == f"{__version__}\n"


def test_help_names_the_exit_codes(shell):
    text = " ".join(shell("--help").stdout.split())
    assert "3: the broker can't be reached" in text
    for command in ("serve", "run", "doctor", "lease", "queue", "profile", "token", "version"):
        assert command in text


def test_completion_works(shell):
    done = shell(_SPARKBROKER_COMPLETE="complete_bash", COMP_WORDS="sparkbroker lease wa", COMP_CWORD="2")
    # The program's name is what it was started as; only the entry point is completed.
    entry = subprocess.run(
        [f"{sys.exec_prefix}/bin/sparkbroker"],
        env=shell.env
        | {"_SPARKBROKER_COMPLETE": "complete_bash", "COMP_WORDS": "sparkbroker lease wa", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert entry.stdout.split() == ["watch"], entry.stderr + done.stderr


def test_without_a_broker_it_says_how_to_get_one(shell):
    result = shell("lease", "list")
    assert result.returncode == 3
    assert "start one with `sparkbroker serve`, or set SPARKBROKER_URL or --url" in result.stderr


def test_usage_errors_are_2(shell):
    assert shell("lease", "lst").returncode == 2
    assert shell("--url", "nonsense", "queue", "list").returncode == 2
    assert shell("run").returncode == 2
    assert shell("run", "--conf", "nonsense", "--", "true").returncode == 2
    assert shell("run", "--executors", "x", "--", "true").returncode == 2


def test_check_config(shell):
    path = shell.home / "b.toml"
    path.write_text('[queues.etl]\n[profiles.small]\nqueues = ["etl"]\n')
    result = shell("serve", "--check-config", "--config", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    assert "profiles: small (local)" in result.stdout
    path.write_text('[profiles.small]\nqueues = ["etl"]\n')
    result = shell("serve", "--check-config", "--config", str(path))
    assert result.returncode == 1
    assert (
        result.stderr
        == f'sparkbroker: {path}: profiles.small.queues[0]: "etl" is no queue in [queues]; known are default\n'
    )


def test_a_token_is_shown_once_and_kept_as_a_hash(shell):
    path = shell.home / "tokens.toml"
    for principal in ("ann", "bob"):
        result = shell("token", "new", principal, "--append", str(path))
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(caller.principal for caller in load(path).values()) == ["ann", "bob"]
    config = shell.home / "tcp.toml"
    config.write_text(f'[server]\nlisten = ["tcp://127.0.0.1:0"]\ntokens = "{path}"\n')
    for options in (["--check-config"], []):
        result = shell("serve", *options, "--config", str(config))
        assert result.returncode == 1
        assert "2 principals may acquire leases (ann, bob)" in result.stderr


def test_leases_queues_and_profiles_for_people_and_programs(shell, broker):
    code = """
set -e
s="python -P -m sparkbroker.broker"
$s -o json lease list; echo =
$s lease list; echo =
$s lease get $SPARKBROKER_LEASE -o json; echo =
$s lease get ${SPARKBROKER_LEASE#leases/}; echo =
$s queue list -o json; echo =
$s queue list; echo =
$s profile list -o json; echo =
$s profile list
"""
    result = shell("run", "--mode", "local", "--cores", "1", "--key", "a/b", "--", "sh", "-c", code)
    assert result.returncode == 0, result.stderr
    leases, lease_table, lease, details, queues, queue_table, profiles, profile_table = result.stdout.split("=\n")
    [listed] = json.loads(leases)["leases"]
    assert (listed["state"], listed["key"], listed["spec"]["queue"]) == ("LEASE_STATE_READY", "a/b", "default")
    assert "1 core" in lease_table
    assert json.loads(lease)["name"] == listed["name"]
    assert "attached (1)" in details
    [queue] = json.loads(queues)["queues"]
    assert queue["used"]["cpu"] == "1000"
    assert "default" in queue_table
    [profile] = json.loads(profiles)["profiles"]
    assert profile["name"] == "profiles/default"
    assert "1 x 1g" in profile_table


def test_a_watch_tells_a_leases_life_one_object_a_line(shell, broker):
    result = shell("run", "--mode", "local", "--", "sh", "-c", "echo $SPARKBROKER_LEASE")
    name = result.stdout.strip()
    assert name in shell("lease", "get", name).stdout
    watched = shell("-o", "json", "lease", "watch", name)
    assert watched.returncode == 0, watched.stderr
    [snapshot] = [json.loads(line) for line in watched.stdout.splitlines()]
    assert snapshot["snapshot"]["state"] == "LEASE_STATE_RELEASED"


def test_a_lease_that_has_ended_can_be_read_and_forced_in_vain(shell, broker):
    name = shell("run", "--mode", "local", "--", "sh", "-c", "echo $SPARKBROKER_LEASE").stdout.strip()
    logs = shell("lease", "logs", "--executors", name)
    assert (logs.returncode, logs.stdout) == (0, ""), logs.stderr
    forced = shell("lease", "release", "--force", "--message", "burnt", name)
    assert forced.returncode == 0, forced.stderr
    assert forced.stdout.strip() == f"{name} RELEASED it had ended already: nothing was done"
    assert json.loads(shell("lease", "release", "--force", name, "-o", "json").stdout)["lease"]["name"] == name


EVIL = "[red]\x1b]0;title\x07\x9b2J\u202e"


def on_a_terminal(shell, *arguments):
    """What it writes there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        shell.command(*arguments), env=shell.env | {"TERM": "xterm"}, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    seen = b""
    with os.fdopen(controller, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(4096)
            except OSError:  # Linux's way to say that nobody has it open any more
                break
            if not piece:
                break
            seen += piece
    process.wait(60)
    return seen.decode()


def test_what_others_write_is_shown_and_not_obeyed(shell, broker):
    with Broker(f"unix://{shell.home}/.local/state/sparkbroker/run/broker.sock") as client:
        lease = client.acquire(mode="LOCAL", cores=1)
        name = lease.name
        client.release(name, "[red]rot[/red] [link=http://x]y[/link]")
    commands = [("lease", "get", name), ("lease", "list", "--all"), ("lease", "watch", name), ("lease", "get", EVIL)]
    for arguments in commands:
        seen = on_a_terminal(shell, *arguments)
        assert not re.findall(r"\x1b(?!\[[0-9;]*m)|[\x07\x80-\x9f\u202e]", seen), seen  # its own colours it may have
        piped = shell(*arguments)
        assert not set(piped.stdout + piped.stderr) & set("\x1b\x07\x9b\u202e"), piped
    assert "[red]rot[/red] [link=http://x]y[/link]" in shell("lease", "get", name).stdout, "text isn't markup"


def test_the_end_of_a_log_is_shown_and_not_obeyed(capsys):
    lease = pb.Lease(name="leases/a", key=EVIL, exit=pb.DriverExit(exit_code=1, log_tail=[EVIL, "[bold]b"]))
    output.console().print(output.lease_details(lease))
    output.console().print("also", EVIL)
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\x9b\u202e"), shown
    assert shown.count("[red]\\x1b]0;title\\x9b2J\\u202e") + shown.count("[red]\\x1b]0;title\\x07\\x9b2J\\u202e") == 3
    assert "[bold]b" in shown


def test_no_row_takes_the_place_of_another(capsys, monkeypatch):
    """On a narrow terminal: what is escaped is longer than what was written, and a line end is text."""
    wide, forged = "\u202e" * 40, "\nbbb READY -"
    event = pb.LeaseEvent(lease="leases/aaa", message="gone\n2026-01-01 00:00:00  bbb  READY")
    detail = pb.Lease(name="leases/aaa", exit=pb.DriverExit(exit_code=1, log_tail=["\u200b" * 40 + "end"]))
    lease = pb.Lease(name="leases/aaa", principal=wide + forged, key=forged)
    queue = pb.Queue(name="queues/aaa", blocking_message=wide + forged)
    profile = pb.Profile(name="profiles/aaa", description=forged, unusable_message=wide + forged)
    finding = Finding("aaa", Status.WARN, wide + "end")
    made = [output.lease_rows([lease], 0), output.queue_rows([queue]), output.profile_rows([profile])]
    monkeypatch.setattr(output, "_WIDE", 120)
    for rows in made:
        output.console().print(rows)
        _, *lines = capsys.readouterr().out.splitlines()
        assert [line[:1] for line in lines] == ["a", *" " * (len(lines) - 1)], lines
        assert all(len(line) <= 120 for line in lines)
    output.console().print(output.event_line(event), soft_wrap=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
    output.console().print(output.lease_details(detail))
    shown = "".join(capsys.readouterr().out.split())
    assert shown.endswith("\\u200b" * 40 + "end"), "and nothing is cut off"
    doctor_output.show([finding], json_output=False)
    assert "".join(capsys.readouterr().out.split()).count("\\u202e") == 40


def test_what_does_not_exist_is_refused(shell, broker):
    for arguments in (
        ("lease", "get", "nope"),
        ("lease", "release", "nope"),
        ("lease", "list", "--filter", "colour=red"),
    ):
        result = shell(*arguments)
        assert result.returncode == 4, result.stderr
        assert result.stderr.startswith("sparkbroker: ")
        assert "Traceback" not in result.stderr


@pytest.mark.promise(6)
def test_a_second_broker_on_one_state_folder_refuses_in_one_message(shell, broker):
    result = shell("serve")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert str(shell.home) in result.stderr


def test_doctor_finds_this_machine_fit_and_says_what_is_missing(shell, broker):
    result = shell("doctor", "-o", "json")
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert findings["broker"]["status"] == "ok"
    assert findings["Python"]["status"] == "ok"
    assert (result.returncode == 1) == any(finding["status"] == "missing" for finding in findings.values())
    without = shell("doctor", JAVA_HOME="/nonexistent", SPARK_HOME="/nonexistent")
    assert without.returncode == 1
    assert "missing" in without.stdout
    assert "sparkbroker[local]" in without.stdout
    dead = shell("doctor", "-o", "json", SPARKBROKER_URL="grpc://127.0.0.1:1")
    finding = next(finding for finding in json.loads(dead.stdout) if finding["what"] == "broker")
    assert dead.returncode == 1
    assert finding["status"] == "missing"
    assert "grpc://127.0.0.1:1 (SPARKBROKER_URL)" in finding["found"]
