"""Connections that somebody without a token opens: a broker with few files serves others on."""

import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sparkbroker.broker.adapters.static_tokens import new_token
from sparkbroker.v1 import broker_pb2 as pb
from sparkbroker.v1 import broker_pb2_grpc as pb_grpc

FILES = 220
"""That the broker may have open."""
CROWD = 400


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Connections, closed at the end."""
    with contextlib.ExitStack() as stack:
        made: list[socket.socket] = []
        yield made
        for each in made:
            stack.enter_context(each)


def test_silent_connections_cost_others_nothing(make_broker, crowd):
    broker = make_broker()
    port, metrics_port = free_port(), free_port()
    token, entry = new_token("ann")
    tokens = broker.folder / "tokens.toml"
    tokens.touch(mode=0o600)
    tokens.write_text(entry)
    listen = f"""listen = ["unix:{broker.socket}", "tcp://127.0.0.1:{port}"]
tokens = "{tokens}"
metrics = "127.0.0.1:{metrics_port}"
max_unauthenticated_connections = 20
"""
    broker.config.write_text(broker.config.read_text().replace("[server]\n", "[server]\n" + listen))
    broker.command = ["sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh", *broker.command]
    broker.start()
    assert "server.fewer_connections" in broker.said()

    def connect(count: int, to: int) -> None:
        for _ in range(count):
            crowd.append(socket.create_connection(("127.0.0.1", to), timeout=10))

    connect(CROWD, port)
    connect(CROWD, metrics_port)
    lease = broker.ready()  # a driver's start wants descriptors
    who = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.BrokerServiceStub(channel)
        stub.ListQueues(pb.ListQueuesRequest(), timeout=30, metadata=who, wait_for_ready=True)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        shown = answer.read().decode()
    assert 'sparkbroker_limited_total{limit="unauthenticated_connections"}' in shown
    assert 'sparkbroker_limited_total{limit="metrics_connections"}' in shown
    assert len(list(Path(f"/proc/{broker.pid}/fd").iterdir())) < FILES
    assert len(list(Path(f"/proc/{broker.pid}/task").iterdir())) < 100
    broker.release(lease.name)
    broker.until_ended(lease.name)
    assert broker.stop() == 0
    assert "Too many open files" not in broker.said()
