"""Who may call is checked in the same way at the start, by --check-config, at SIGHUP and when the file has changed."""

import getpass
import signal
import socket
from collections.abc import Iterator

import grpc
import pytest

from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as pb_grpc


def new_token(shell, path, principal):
    made = shell("token", "new", principal, "--append", str(path))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def code(port: int, token: str) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.BrokerServiceStub(channel)
        try:
            stub.ListQueues(pb.ListQueuesRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def said(lines: Iterator[str], event: str) -> str:
    """The first line from here on with this event."""
    return next(line for line in lines if event in line)


@pytest.fixture
def listening(shell, tmp_path):
    """A broker on TCP with the tokens of a file."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "tokens.toml"
    ann = new_token(shell, path, "ann")
    config = tmp_path / "b.toml"
    config.write_text(
        f'[server]\nlisten = ["tcp://127.0.0.1:{port}"]\ntokens = "{path}"\n[store]\nstate_folder = "{tmp_path}/s"\n'
    )
    process = shell.start("serve", "--config", str(config))
    lines = iter(process.stderr)
    try:
        said(lines, "broker.serving")
        yield process, lines, port, path, ann
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_reload_with_a_second_user_of_local_drivers_is_refused(shell, listening):
    process, lines, port, path, ann = listening
    before = path.read_text()
    bob = new_token(shell, path, "bob")
    process.send_signal(signal.SIGHUP)
    assert "2 principals may acquire leases (ann, bob)" in said(lines, "tokens.not_reloaded")
    assert (code(port, ann), code(port, bob)) == (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
    path.write_text(before.replace('"ann"', '"cleo"'))
    process.send_signal(signal.SIGHUP)
    said(lines, "tokens.reloaded")
    assert code(port, ann) is grpc.StatusCode.OK


def test_a_token_that_is_taken_out_of_the_file_is_void_without_a_signal(shell, listening, tmp_path):
    _, lines, port, path, ann = listening
    assert code(port, ann) is grpc.StatusCode.OK
    bob = new_token(shell, tmp_path / "other.toml", "bob")
    (tmp_path / "other.toml").rename(path)
    assert str(path) in said(lines, "tokens.reloaded")
    assert (code(port, ann), code(port, bob)) == (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK)


def test_the_user_of_a_unix_socket_is_a_principal_too(shell, tmp_path):
    path = tmp_path / "tokens.toml"
    new_token(shell, path, "ann")
    config = tmp_path / "b.toml"
    config.write_text(f'[server]\nlisten = ["tcp://127.0.0.1:0", "unix:{tmp_path}/b.sock"]\ntokens = "{path}"\n')
    refused = shell("serve", "--check-config", "--config", str(config))
    assert refused.returncode == 1
    assert f"({', '.join(sorted(['ann', getpass.getuser()]))})" in refused.stderr
    config.write_text(f"shared_trust = true\n{config.read_text()}")
    assert shell("serve", "--check-config", "--config", str(config)).returncode == 0


def test_a_token_file_that_nobody_is_asked_for_is_not_opened(shell, tmp_path):
    """`sparkbroker run` takes queues and profiles of the machine's configuration, whose tokens a user can't read."""
    config = tmp_path / "b.toml"
    config.write_text(f'[server]\nlisten = ["tcp://127.0.0.1:0"]\ntokens = "{tmp_path}/unreadable"\n')
    command = ["run", "--mode", "local", "--cores", "1", "--memory", "512m", "--", "true"]
    ran = shell(*command, SPARKBROKER_CONFIG=str(config))
    assert ran.returncode == 0, ran.stderr
    told = shell("serve", "--check-config", "--config", str(config))
    assert told.returncode == 1
    assert "unreadable can't be read" in told.stderr
