"""The file's defaults are those that each part has by itself, as its own tests run it."""

import inspect

import pytest

from sparkbroker.broker import bootstrap
from sparkbroker.broker.adapters.local_provisioner import Bounds
from sparkbroker.broker.adapters.sql_store import StateFolder
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.janitor import Retention
from sparkbroker.broker.config import load_config, to_profiles, to_queues
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.lease.lease import LeaseSpec
from sparkbroker.broker.rpc.limits import Limits


@pytest.fixture
def config():
    return load_config(None, {"HOME": "/nobody"})


def test_the_servers_limits(config):
    assert bootstrap._limits(config, files=65_536) == Limits()


def test_what_a_principal_may_have(config):
    assert bootstrap._allowance(config) == Allowance()


def test_what_is_kept(config):
    assert bootstrap._retention(config) == Retention()
    assert inspect.signature(StateFolder).parameters["ballast_size"].default == config.store.ballast


def test_downloads(config):
    assert bootstrap._bounds(config) == Bounds()


def test_queues(config):
    [queue] = to_queues(config, {}).values()
    assert queue == Queue(name=queue.name, nominal=queue.nominal)


def test_profiles_and_what_a_lease_gets(config):
    [profile] = to_profiles(config).values()
    spec = profile.defaults
    assert profile == Profile(name=profile.name, defaults=spec, allowed_conf=profile.allowed_conf)
    assert spec == LeaseSpec(profile=spec.profile, queue=spec.queue, driver=spec.driver)
