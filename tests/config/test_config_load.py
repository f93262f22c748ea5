"""Where the configuration comes from, what it defaults to, and how it becomes the domain's."""

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.config import (
    DEFAULT_ALLOWED_CONF,
    ConfigError,
    capacity_warnings,
    check_principals,
    load_config,
    to_capacity,
    to_profiles,
    to_queues,
)
from sparkbroker.broker.config.fields import parse_duration
from sparkbroker.broker.domain.asking.conf import check_conf
from sparkbroker.broker.domain.asking.request import SpecRequest, resolve
from sparkbroker.broker.domain.capacity.resources import CPU, MEMORY, Resources
from sparkbroker.broker.domain.lease.lease import LeaseMode

GIB = 1 << 30
MACHINE = {"local": Resources.of(cores=4, memory=8 * GIB)}


@pytest.fixture
def load(tmp_path):
    def load(text="", env=None, **overrides):
        path = tmp_path / "broker.toml"
        path.write_text(text)
        return load_config(path, {"HOME": str(tmp_path), "XDG_STATE_HOME": "/state", **(env or {})}, **overrides)

    return load


def test_without_a_file_there_is_one_queue_with_the_machine_and_one_local_profile():
    config = load_config(None, {"HOME": "/nobody"})
    capacity = to_capacity(config, MACHINE)
    assert config.source in {"built-in defaults", "/etc/sparkbroker/broker.toml"}
    assert config.listen == ("unix:/nobody/.local/state/sparkbroker/run/broker.sock",)
    assert capacity == MACHINE
    assert {name: queue.nominal for name, queue in to_queues(config, capacity).items()} == {"default": MACHINE["local"]}
    [profile] = to_profiles(config).values()
    assert (profile.name, profile.provisioner, profile.defaults.queue) == ("default", "local", "default")
    assert profile.defaults.driver.memory == GIB


def test_files_are_searched_in_order(tmp_path):
    home, xdg, named = tmp_path / "home", tmp_path / "xdg", tmp_path / "named.toml"
    env = {"HOME": str(home), "XDG_STATE_HOME": "/state"}
    for folder in (home / ".config" / "sparkbroker", xdg / "sparkbroker"):
        folder.mkdir(parents=True)
        (folder / "broker.toml").touch()
    named.touch()
    assert load_config(None, env).source == str(home / ".config/sparkbroker/broker.toml")
    env |= {"XDG_CONFIG_HOME": "relative/is/ignored"}
    assert load_config(None, env).source == str(home / ".config/sparkbroker/broker.toml")
    env |= {"XDG_CONFIG_HOME": str(xdg)}
    assert load_config(None, env).source == str(xdg / "sparkbroker/broker.toml")
    env |= {"SPARKBROKER_CONFIG": str(named)}
    assert load_config(None, env).source == str(named)
    other = tmp_path / "other.toml"
    other.touch()
    assert load_config(other, env).source == str(other)


def test_the_environment_wins_over_the_file_and_overrides_over_both(load):
    env = {
        "SPARKBROKER__LEASES__TTL": "45s",
        "SPARKBROKER__SERVER__LISTEN": '["unix:/run/a.sock"]',
        "SPARKBROKER__PROFILES__DEFAULT__CONF__spark.sql.ansi.enabled": "true",
        "SPARKBROKER__SHARED_TRUST": "true",
        "SPARKBROKER_URL": "unix:///not/ours",
    }
    config = load('[leases]\nttl = "10s"\nwait_ttl = "1m"\n[server]\nlisten = ["unix:/run/b.sock"]', env)
    assert (config.leases.ttl, config.leases.wait_ttl) == (45.0, 60.0)
    assert config.listen == ("unix:/run/a.sock",)
    assert config.profiles["default"].conf == {"spark.sql.ansi.enabled": "true"}
    assert config.shared_trust
    config = load("", env, overrides={("server", "listen"): ["unix:/run/c.sock"]})
    assert config.listen == ("unix:/run/c.sock",)


def test_a_configuration_never_changes(load):
    config = load()
    with pytest.raises(ValueError, match="frozen"):
        config.leases.ttl = 3.0


FULL = """
shared_trust = true
[leases]
ttl = 20
max_duration = "2h"
default_queue = "etl"
[capacity.local]
memory = "4g"
[capacity.cluster]
cpu = 64
memory = "256g"
[queues.etl]
cpu = "500m"
priority_step = "1m"
users = ["ann"]
[queues.adhoc]
memory = "1t"
max_queued = 5
[profiles.small]
description = "for trying"
queues = ["adhoc"]
modes = ["CONNECT"]
conf.spark.sql.ansi.enabled = true
conf.spark.sql.shuffle.partitions = 8
default_conf = { "spark.sql.session.timeZone" = "UTC" }
allowed_conf_extra = ["spark.hadoop.my.key"]
packages = ["org.apache.spark:spark-avro_2.13:4.0.0"]
[profiles.small.driver]
cores = 2
memory = "1536m"
[profiles.small.executors]
max_count = 3
memory = "2g"
memory_overhead = "512m"
[profiles.small.limits]
driver_cores = 4
max_duration = "3h"
[profiles.cluster]
master = "spark://m1:7077,m2:7077"
pool = "cluster"
[profiles.shared]
provisioner = "static"
shared = true
endpoints = [{ url = "sc://spark.example:15002/", token_file = "/run/token" }, { url = "sc://other/" }]
"""


def test_a_full_file_becomes_the_domains_values(load):
    config = load(FULL)
    capacity = to_capacity(config, MACHINE)
    assert capacity == {
        "local": Resources({CPU: 4000, MEMORY: 4 * GIB}),
        "cluster": Resources({CPU: 64_000, MEMORY: 256 * GIB}),
        "static:shared": Resources({"endpoint": 2}),
    }
    queues = to_queues(config, capacity)
    assert queues["etl"].nominal == Resources({CPU: 500, MEMORY: 260 * GIB})
    assert (queues["etl"].priority_step, queues["etl"].users, queues["etl"].max_queued) == (60.0, ("ann",), 10_000)
    assert (queues["adhoc"].nominal[CPU], queues["adhoc"].max_queued) == (68_000, 5)

    profiles = to_profiles(config)
    small = profiles["small"]
    assert small.conf == {"spark.sql.ansi.enabled": "true", "spark.sql.shuffle.partitions": "8"}
    assert small.allowed_conf == (*DEFAULT_ALLOWED_CONF, "spark.hadoop.my.key")
    assert (small.limits.driver_cores, small.limits.max_duration) == (4, 10_800.0)
    defaults = small.defaults
    assert (defaults.profile, defaults.queue, defaults.mode) == ("small", "adhoc", LeaseMode.CONNECT)
    assert (defaults.ttl, defaults.max_duration, defaults.driver.memory) == (20.0, 7200.0, 1536 << 20)
    assert defaults.executors is not None
    assert (defaults.executors.min_count, defaults.executors.max_count) == (1, 3)
    assert defaults.executors.size.overhead == 512 << 20
    assert profiles["cluster"].defaults.queue == "etl"
    assert (profiles["cluster"].master, profiles["cluster"].pool) == ("spark://m1:7077,m2:7077", "cluster")
    shared = profiles["shared"]
    assert (shared.modes, shared.pool, shared.shared_endpoints) == ((LeaseMode.CONNECT,), "static:shared", True)
    assert (shared.allowed_conf, shared.allow_packages) == ((), False)
    assert [(e.url, e.token_file) for e in shared.endpoints] == [
        ("sc://spark.example:15002/", "/run/token"),
        ("sc://other/", None),
    ]


def test_a_request_that_names_only_a_profile_gets_its_defaults(load):
    for name, profile in to_profiles(load(FULL)).items():
        queues = profile.queues or ("etl", "adhoc")
        spec = resolve(SpecRequest(profile=name), profile, queues=queues, default_queue="etl")
        assert spec == profile.defaults


def test_profiles_can_be_stored(load):
    for profile in to_profiles(load(FULL)).values():
        assert msgspec.json.decode(msgspec.json.encode(profile), type=type(profile)) == profile


def test_quotas_beyond_the_capacity_are_allowed_and_said(load):
    config = load(FULL)
    assert capacity_warnings(config, to_capacity(config, MACHINE)) == [
        "queues.adhoc.memory is 1 TiB of memory, and all pools together have 260 GiB of memory"
    ]
    config = load('[profiles.a]\nmaster = "spark://m:7077"')
    [warning] = capacity_warnings(config, MACHINE)
    assert "profiles.a.pool" in warning


def test_several_users_of_local_drivers_need_shared_trust(load):
    local, static = load(), load('[profiles.a]\nprovisioner = "static"\nendpoints = [{ url = "sc://h/" }]')
    check_principals(local, {"ann"})
    check_principals(static, {"ann", "bob"})
    check_principals(load("shared_trust = true"), {"ann", "bob"})
    with pytest.raises(ConfigError, match=r"2 principals may acquire leases \(ann, bob\) and profiles\.default has"):
        check_principals(local, {"ann", "bob"})


def test_the_default_allow_list_is_one_that_the_domain_lets_through(load):
    profile = to_profiles(load())["default"]
    conf = dict.fromkeys(DEFAULT_ALLOWED_CONF, "1")
    assert check_conf(conf, profile) == conf
    assert not any(key.endswith("*") for key in DEFAULT_ALLOWED_CONF)


def test_paths_may_begin_at_home(load):
    assert load('[store]\nstate_folder = "~/s"').store.state_folder == Path("~/s").expanduser()


@given(st.lists(st.tuples(st.integers(1, 900), st.sampled_from("dhms")), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts):
    seconds = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == sum(number * seconds[unit] for number, unit in parts)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_whatever_is_given_as_a_duration_is_one_or_is_refused(value):
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        assert "; " in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert math.isfinite(seconds)
        assert seconds > 0


_SCALARS = st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans())
_SECTIONS = st.sampled_from(["server", "store", "leases", "capacity", "queues", "profiles", "shared_trust", "x"])
_KEYS = st.sampled_from(["listen", "ttl", "local", "cpu", "driver", "conf", "endpoints", "a", "executors", "limits"])


@given(
    st.dictionaries(
        st.tuples(_SECTIONS, _KEYS),
        st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=3)),
        max_size=4,
    )
)
def test_whatever_stands_in_the_file_it_is_used_or_refused_with_the_field_named(overrides):
    try:
        load_config(None, {"HOME": "/nonexistent"}, overrides=overrides)
    except ConfigError as error:
        assert all(problem.field and problem.problem and problem.expected for problem in error.problems)  # noqa: PT017 (as above)
