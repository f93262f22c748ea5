"""``images/broker/drain``, which releases all leases before the chart is uninstalled, against a real broker."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from sparkbroker.client import Broker, Lease

pytestmark = pytest.mark.timeout(120)
PROGRAM = Path(__file__).parents[2] / "images" / "broker" / "drain"


@pytest.fixture
def program():
    loader = SourceFileLoader("broker_drain", str(PROGRAM))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def client(shell, broker):
    with Broker(f"unix://{shell.home}/.local/state/sparkbroker/run/broker.sock") as client:
        yield client


def live(client):
    return [lease.name for lease in client.list("live=true")]


def test_it_releases_all_leases_and_looks_again_before_it_ends(program, client, capsys):
    first = client.acquire(mode="LOCAL")
    later: list[Lease] = []

    def pause(seconds):
        """A client comes back once, when the drain believes that all is done."""
        if seconds == program.SETTLE and not later:
            later.append(client.acquire(mode="LOCAL"))

    program.drain(client, pause)
    assert live(client) == []
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("releasing ")] == [
        f"releasing {first.name}",
        f"releasing {later[0].name}",
    ]
    assert said[-1] == "no lease is left"


def test_where_nothing_is_leased_two_looks_are_enough(program, client):
    pauses: list[float] = []
    program.drain(client, pauses.append)
    assert pauses == [program.SETTLE]
