"""A broker that can't start says why, once; one that stops, or whose clock is set, costs nobody a lease."""

import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sparkbroker.v1 import broker_pb2 as pb

pytestmark = pytest.mark.timeout(120)

SHIFTED = str(Path(__file__).with_name("shifted_broker.py"))


def serve(broker, *arguments, **env):
    """Run ``sparkbroker serve`` to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "sparkbroker.broker", "serve", "--config", str(broker.config), *arguments],
        env=broker.env | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def told(done):
    """The one message of a broker that could not start."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # not its log
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[0].startswith("sparkbroker: ")
    return lines[0]


@pytest.fixture
def used(make_broker):
    """One that ran, has a lease on record, and doesn't run now."""
    broker = make_broker().start()
    broker.acquire(mode=pb.LEASE_MODE_LOCAL)
    assert broker.stop() == 0
    return broker


# -- it can't start


def test_a_second_broker_refuses_and_the_first_notices_nothing(broker):
    lease = broker.ready(ttl=Duration(seconds=60))
    generation = broker.attach(lease.name)
    message = told(serve(broker))
    assert f"another broker (pid {broker.pid}, since " in message
    assert str(broker.state) in message
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    assert len(broker.processes()) == 2
    assert broker.socket.is_socket()


def test_a_second_broker_on_the_same_socket_refuses(broker, make_broker):
    other = make_broker()
    message = told(serve(other, "--listen", f"unix:{broker.socket}"))
    assert f"another process listens on {broker.socket}" in message
    broker.release(broker.ready().name)


def test_a_newer_schema(used):
    with sqlite3.connect(used.state / "broker.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "was made by a newer sparkbroker (schema 9999" in told(serve(used))


def test_another_programs_database(used):
    for path in used.state.glob("broker.db*"):
        path.unlink()
    with sqlite3.connect(used.state / "broker.db") as database:
        database.execute("CREATE TABLE recipes (cake TEXT)")
    database.close()
    assert "another program's database" in told(serve(used))


@pytest.mark.parametrize("damage", ["head", "middle", "cut"])
def test_a_damaged_database_is_said_and_left_as_it_is(used, damage):
    path = used.state / "broker.db"
    data = bytearray(path.read_bytes())
    match damage:
        case "head":
            data[:64] = b"\xff" * 64
        case "middle":
            data[4096:] = b"\xff" * (len(data) - 4096)
        case "cut":
            del data[5000:]
    path.write_bytes(data)
    message = told(serve(used))
    assert str(path) in message
    assert "restore" in message
    assert path.read_bytes() == data


def test_a_key_of_another_length(used):
    (used.state / "key").write_bytes(b"short")
    assert "has 5 bytes, and a key has 32" in told(serve(used))


def test_a_folder_that_others_may_read(used):
    used.state.chmod(0o755)
    assert f"chmod 700 {used.state}" in told(serve(used))


def test_a_state_folder_that_is_a_file(make_broker):
    broker = make_broker()
    broker.state.write_text("")
    assert str(broker.state) in told(serve(broker))


def test_a_read_only_state_folder(used, need):
    """In a mount namespace of its own, since root may write whatever modes say."""
    need(shutil.which("unshare"), "unshare, of util-linux")
    inside = f"mount --bind {used.state} {used.state} && mount -o remount,ro,bind {used.state} && exec "
    command = [sys.executable, "-P", "-m", "sparkbroker.broker", "serve", "--config", str(used.config)]
    wrapped = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside + '"$@"', "sh", *command]
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside + "true"]
    need(subprocess.run(probe, capture_output=True, check=False).returncode == 0, "leave to mount in a user namespace")
    done = subprocess.run(wrapped, env=used.env, capture_output=True, text=True, timeout=60, check=False)
    assert "read-only" in told(done)
    used.start()
    assert used.stop() == 0


@pytest.fixture
def tokens(make_broker):
    """A broker with a token file, so that it may listen on TCP."""

    def make(**settings):
        broker = make_broker(**settings)
        path = broker.folder / "tokens.toml"
        made = subprocess.run(
            [sys.executable, "-P", "-m", "sparkbroker.broker", "token", "new", "ann", "--append", str(path)],
            env=broker.env, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        text = broker.config.read_text().replace("[server]", f'[server]\ntokens = "{path}"')
        broker.config.write_text(text)
        return broker, made.stdout.strip()

    return make


def test_a_port_that_is_taken(tokens):
    broker, _ = tokens()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = told(serve(broker, "--listen", f"tcp://127.0.0.1:{port}"))
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in message


def test_a_metrics_port_that_is_taken(make_broker):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = make_broker()
        broker.config.write_text(
            broker.config.read_text().replace("[server]", f'[server]\nmetrics = "127.0.0.1:{port}"')
        )
        message = told(serve(broker))
    assert f"127.0.0.1:{port}" in message


def test_a_foreign_lease_is_not_found_on_each_call(tokens, tools):
    """Two principals: one of a token on TCP, the other the user on the unix socket."""
    broker, token = tokens()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = f'[server]\nlisten = ["unix:{broker.socket}", "tcp://127.0.0.1:{port}"]'
    broker.config.write_text(broker.config.read_text().replace("[server]", listen))
    broker.start()
    mine = broker.ready(ttl=Duration(seconds=60))
    generation = broker.attach(mine.name)
    name = mine.name
    metadata = (("authorization", f"Bearer {token}"),)
    requests = {
        "GetLease": pb.GetLeaseRequest(name=name),
        "AttachLease": pb.AttachLeaseRequest(name=name, request_id=str(uuid.uuid4())),
        "RenewLease": pb.RenewLeaseRequest(name=name, generation=generation),
        "ReleaseLease": pb.ReleaseLeaseRequest(name=name),
        "GetConnection": pb.GetConnectionRequest(name=name, generation=generation),
        "WatchLease": pb.WatchLeaseRequest(name=name),
        "StreamLogs": pb.StreamLogsRequest(name=name),
    }
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = type(broker.stub)(channel)
        for method, request in requests.items():
            call = getattr(stub, method)

            def ask(call=call, request=request, streams=method in {"WatchLease", "StreamLogs"}):
                answer = call(request, timeout=10, metadata=metadata)
                return list(answer) if streams else answer

            refusal = tools.refused(ask)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"), (method, refusal)
            assert name in refusal.message
        keep = pb.KeepAliveRequest(renewals=[pb.Renewal(name=name, generation=generation)])
        assert next(stub.KeepAlive(iter([keep]), timeout=10, metadata=metadata)).results[0].error_reason == "NOT_FOUND"
        assert not stub.ListLeases(pb.ListLeasesRequest(), timeout=10, metadata=metadata).leases
        for bad in ((), (("authorization", "Bearer nonsense"),), (("authorization", "Basic x"),)):
            refusal = tools.refused(lambda bad=bad: stub.GetLease(requests["GetLease"], timeout=10, metadata=bad))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert token not in refusal.message
    assert broker.renew(name, generation).state == pb.LEASE_STATE_READY
    assert token not in broker.said()
    broker.release(name)
    broker.until_nothing_is_left()


# -- Java or Spark is missing


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ({"JAVA_HOME": "/nonexistent"}, "JAVA_HOME /nonexistent"),
        ({"SPARK_HOME": "/nonexistent"}, "SPARK_HOME /nonexistent"),
    ],
    ids=["java", "spark"],
)
def test_what_is_missing_is_said_wherever_it_matters(make_broker, missing, what):
    broker = make_broker(spark=True, env=missing).start()

    def cli(*arguments):
        url = f"unix://{broker.socket}"
        return subprocess.run(
            [sys.executable, "-P", "-m", "sparkbroker.broker", "--url", url, *arguments],
            env=broker.env | {"SPARKBROKER_CONFIG": str(broker.config)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    profiles = cli("-o", "json", "profile", "list")
    assert profiles.returncode == 0, profiles.stderr
    assert what in profiles.stdout
    doctor = cli("doctor", "-o", "json")
    assert doctor.returncode == 1
    assert what in doctor.stdout
    assert "pip install" in doctor.stdout
    failed = broker.until_ended(broker.acquire().name)
    assert (failed.state, failed.reason) == (pb.LEASE_STATE_FAILED, pb.LEASE_REASON_MISCONFIGURED)
    assert what in failed.message
    assert failed.attempt == 1, "what is missing was tried again"
    run = cli("run", "--", "true")
    assert (run.returncode, what in run.stderr) == (1, True), run
    broker.until_nothing_is_left()
    # What needs no Spark of the broker's still works.
    broker.release(broker.ready(mode=pb.LEASE_MODE_LOCAL).name)
    assert "Traceback" not in broker.said()


# -- it stops


@pytest.mark.promise(15)
def test_sessions_go_on_when_it_is_told_to_stop_and_the_next_adopts_them(broker, tools):
    leases = [broker.ready(ttl=Duration(seconds=60)) for _ in range(2)]
    generations = [broker.attach(lease.name) for lease in leases]
    records = [broker.process_record(lease) for lease in leases]
    assert broker.stop() == 0
    assert all(tools.alive(record["driver_pid"]) for record in records)
    assert "Traceback" not in broker.said()
    broker.start()
    for lease, generation, record in zip(leases, generations, records, strict=True):
        assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
        assert broker.process_record(lease) == record
        broker.release(lease.name)
    broker.until_nothing_is_left()


@pytest.mark.promise(15)
@pytest.mark.promise(8)
def test_it_stops_with_calls_under_way_and_what_it_answered_is_true(make_broker):
    """Eight callers and a watch; each call is answered, or refused in a way that is safe to repeat: UNAVAILABLE, or
    CANCELLED, with which gRPC itself drops what has arrived and wasn't begun."""
    broker = make_broker(wait_ttl=300).start()
    answered: list[str] = []
    codes: list[grpc.StatusCode] = []
    watch_ended: list[object] = []
    running = threading.Barrier(9, timeout=30)

    def ask():
        running.wait()
        while True:
            try:
                answered.append(broker.acquire(mode=pb.LEASE_MODE_LOCAL, queue="default").name)
            except grpc.RpcError as error:
                codes.append(error.code())
                return

    def watch():
        stream = broker.stub.WatchLeases(pb.WatchLeasesRequest(), timeout=60)
        next(stream)
        running.wait()
        try:
            for _ in stream:
                pass
            watch_ended.append(None)
        except grpc.RpcError as error:
            watch_ended.append(error.code())

    # Each has to be admitted or queued; both are answers.
    threads = [threading.Thread(target=ask) for _ in range(8)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    while len(answered) < 20 and any(thread.is_alive() for thread in threads[:8]):
        threads[0].join(0.01)
    status = broker.stop()
    for thread in threads:
        thread.join(30)
    assert status == 0
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert len(codes) == 8
    assert watch_ended in ([None], [grpc.StatusCode.UNAVAILABLE])
    assert len(answered) >= 20
    broker.start()
    for name in answered:
        assert broker.get(name).name == name
    for name in answered:
        broker.release(name)
    assert "Traceback" not in broker.said()


@pytest.mark.promise(15)
def test_it_stops_while_a_driver_starts(broker):
    name = broker.acquire(conf={"spark.small.delay": "2"}).name
    broker.until_state(name, pb.LEASE_STATE_PROVISIONING)
    assert broker.stop() == 0
    broker.start()
    assert broker.until_state(name, pb.LEASE_STATE_READY).attempt == 1
    assert len(broker.processes()) == 2
    broker.release(name)
    broker.until_nothing_is_left()


def test_a_second_signal_while_it_stops_does_no_harm(broker):
    broker.ready()
    for _ in range(5):
        broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    broker.start()
    assert broker.stop() == 0


# -- its clock is set


@pytest.mark.promise(4)
@pytest.mark.parametrize("hours", [-1, 1], ids=["back", "forward"])
def test_a_clock_that_is_set_by_an_hour_expires_nothing(make_broker, hours):
    """While it runs, and between two runs; and an hour back delays no expiry either."""
    broker = make_broker(ttl=30, wait_ttl=60)
    shift = broker.folder / "shift"
    shift.write_text("0")
    broker.command = [sys.executable, SHIFTED, str(broker.config), str(shift)]
    broker.start()
    lease = broker.ready()
    generation = broker.attach(lease.name)
    request_id = str(uuid.uuid4())
    other = broker.acquire(request_id=request_id, mode=pb.LEASE_MODE_LOCAL).name
    set_to = broker.folder / "shift.new"
    set_to.write_text(str(hours * 3600))
    set_to.replace(shift)
    short = broker.acquire(mode=pb.LEASE_MODE_LOCAL, ttl=Duration(seconds=1)).name
    broker.attach(short)
    assert broker.until_ended(short).reason == pb.LEASE_REASON_HOLDER_LOST
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    assert broker.get(other).state == pb.LEASE_STATE_READY
    broker.kill()
    shift.write_text(str(-hours * 3600))
    broker.start()
    assert broker.renew(lease.name, generation).state == pb.LEASE_STATE_READY
    assert broker.acquire(request_id=request_id, mode=pb.LEASE_MODE_LOCAL).name == other
    order = broker.stub.ListLeases(pb.ListLeasesRequest(filter="live=true", page_size=1), timeout=10)
    rest = broker.stub.ListLeases(
        pb.ListLeasesRequest(filter="live=true", page_size=1, page_token=order.next_page_token), timeout=10
    )
    assert {order.leases[0].name, rest.leases[0].name} == {lease.name, other}
    for name in (lease.name, other):
        broker.release(name)
    broker.until_nothing_is_left()
