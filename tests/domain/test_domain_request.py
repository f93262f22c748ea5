import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.asking.profile import Limits
from sparkbroker.broker.domain.asking.request import (
    ExecutorRequest,
    SizeRequest,
    SpecRequest,
    check_key,
    check_request_id,
    check_text,
    ensure_can_ever_fit,
    resolve,
)
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import MIB, Resources
from sparkbroker.broker.domain.errors import InvalidField, NeverFits
from sparkbroker.broker.domain.lease.lease import LeaseMode, LeaseSharing

GIB = 1024 * MIB
QUEUES = ("adhoc", "etl")


def asked(profile, **fields):
    return resolve(SpecRequest(**fields), profile, queues=QUEUES, default_queue="adhoc")


def refused(profile, **fields) -> InvalidField:
    with pytest.raises(InvalidField) as error:
        asked(profile, **fields)
    return error.value


def test_a_request_for_nothing_but_the_profile_gets_its_defaults(make_profile):
    profile = make_profile()
    assert asked(profile) == profile.defaults


def test_fields_that_are_set_replace_the_defaults_and_the_others_stay(make_profile):
    spec = asked(
        make_profile(),
        queue="adhoc", mode=LeaseMode.LOCAL, driver=SizeRequest(cores=4),
        executors=ExecutorRequest(size=SizeRequest(memory="3g"), max_count=2), priority=5,
        conf={"spark.sql.adaptive.enabled": "true"}, labels={"a/b": ""}, packages=("g/a_2.13:1.0",),
        jars=("/j.jar", "https://h/j.jar"), ttl=60.0, max_duration=10.0, keep_when_holder_lost=True,
    )  # fmt: skip
    assert (spec.queue, spec.mode, spec.priority, spec.ttl, spec.max_duration) == ("adhoc", LeaseMode.LOCAL, 5, 60, 10)
    assert (spec.driver.cores, spec.driver.memory) == (4, GIB)
    assert spec.executors is not None
    assert (spec.executors.size.cores, spec.executors.size.memory) == (2, 3 * GIB)
    assert (spec.executors.min_count, spec.executors.max_count) == (0, 2)
    assert spec.conf == {"spark.sql.shuffle.partitions": "8", "spark.sql.adaptive.enabled": "true"}
    assert spec.labels == {"team": "x", "a/b": ""}
    assert spec.packages == ("g:default:1", "g:a_2.13:1.0")
    assert spec.wait_ttl == 60.0
    assert spec.keep_when_holder_lost


def test_no_executors_can_be_asked_for_and_their_counts_default(make_profile):
    profile = make_profile()
    assert asked(profile, executors=ExecutorRequest()).executors is None
    spec = asked(profile, executors=ExecutorRequest(size=SizeRequest(cores=5)))
    assert spec.executors is not None
    assert (spec.executors.size.cores, spec.executors.min_count, spec.executors.max_count) == (5, 1, 3)
    without = make_profile(defaults=msgspec.structs.replace(profile.defaults, executors=None))
    assert asked(without, executors=ExecutorRequest(max_count=2)).executors.size == without.defaults.driver
    assert refused(without, executors=ExecutorRequest(size=SizeRequest(cores=5))).field == "spec.executors.max_count"


def test_a_named_overhead_of_the_profile_is_for_its_own_heap(make_profile):
    profile = make_profile()
    driver = msgspec.structs.replace(profile.defaults.driver, overhead=100 * MIB)
    profile = make_profile(defaults=msgspec.structs.replace(profile.defaults, driver=driver))
    assert asked(profile, driver=SizeRequest(cores=2)).driver.overhead == 100 * MIB
    assert asked(profile, driver=SizeRequest(memory="8g")).driver.overhead is None
    assert asked(profile, driver=SizeRequest(memory="8g", memory_overhead="1g")).driver.overhead == GIB


BAD = [
    ({"queue": "nope"}, "spec.queue", "`adhoc`, `etl`"),
    ({"driver": SizeRequest(cores=-1)}, "spec.driver.cores", "1 to"),
    ({"driver": SizeRequest(cores=2**31 - 1)}, "spec.driver.cores", "1 to"),
    ({"driver": SizeRequest(memory="2gg")}, "spec.driver.memory", "2g"),
    ({"driver": SizeRequest(memory="1e99")}, "spec.driver.memory", "2g"),
    ({"driver": SizeRequest(memory="2049k")}, "spec.driver.memory", "use m, g or t"),
    ({"driver": SizeRequest(memory_overhead="-1")}, "spec.driver.memory_overhead", "2g"),
    ({"executors": ExecutorRequest(min_count=3, max_count=2)}, "spec.executors.max_count", "min_count"),
    ({"executors": ExecutorRequest(min_count=-1, max_count=2)}, "spec.executors.min_count", "0 to"),
    ({"executors": ExecutorRequest(max_count=10_001)}, "spec.executors.max_count", "0 to 10000"),
    ({"executors": ExecutorRequest(size=SizeRequest(memory="x"))}, "spec.executors.size.memory", "2g"),
    ({"priority": 1001}, "spec.priority", "-1000 to 1000"),
    ({"ttl": 0.0}, "spec.ttl", "1 hour"),
    ({"ttl": math.nan}, "spec.ttl", "1 hour"),
    ({"wait_ttl": math.inf}, "spec.wait_ttl", "7 days"),
    ({"unattended_ttl": 7 * 86400.1}, "spec.unattended_ttl", "7 days"),
    ({"acquire_timeout": -1.0}, "spec.acquire_timeout", "30 days"),
    ({"max_duration": 1e300}, "spec.max_duration", "366 days"),
    ({"labels": {f"k{i}": "" for i in range(10_000)}}, "spec.labels", "64"),
    ({"labels": {"": "x"}}, "spec.labels", "A-Z"),
    ({"labels": {"a b": "x"}}, "spec.labels", "A-Z"),
    ({"labels": {"a" * 64: "x"}}, "spec.labels", "63"),
    ({"labels": {"a": "x" * 257}}, "spec.labels.a", "256"),
    ({"labels": {"a": "x\ny"}}, "spec.labels.a", "printable"),
    ({"conf": {"spark.sql.adaptive.x": "a" * 10_000_000}}, "spec.conf", "65536"),
    ({"conf": {"spark.sql.adaptive.x": "é" * 40_000}}, "spec.conf", "65536"),
    ({"conf": {f"spark.sql.adaptive.{i}": "" for i in range(201)}}, "spec.conf", "200"),
    ({"conf": {"java.library.path": "/x"}}, "spec.conf['java.library.path']", "spark."),
    ({"conf": {"spark.unheard": "x"}}, "spec.conf['spark.unheard']", "allowed are"),
    ({"conf": {"spark.sql.session.timeZone": "UTC"}}, "spec.conf['spark.sql.session.timeZone']", "leave it out"),
    ({"conf": {"spark.sql.adaptive.x": "${env:HOME}"}}, "spec.conf['spark.sql.adaptive.x']", "substituted"),
    ({"conf": {"spark.sql.adaptive.x": "a\0"}}, "spec.conf['spark.sql.adaptive.x']", "one line"),
    ({"conf": {"spark.sql.adaptive.x": "a\nb"}}, "spec.conf['spark.sql.adaptive.x']", "one line"),
    ({"conf": {"spark.sql.adaptive.x": "\ud800"}}, "spec.conf['spark.sql.adaptive.x']", "one line"),
    ({"packages": ("g:a",)}, "spec.packages[0]", "group:artifact:version"),
    ({"packages": ("g:a:1:tests",)}, "spec.packages[0]", "or give that jar's URL in jars"),
    ({"packages": ("g:a:jar:tests:1",)}, "spec.packages[0]", "or give that jar's URL in jars"),
    ({"packages": ("g:a:1", "g:a:1,h:b:2")}, "spec.packages[1]", "group:artifact:version"),
    ({"packages": ("g:a:1",) * 101}, "spec.packages", "100"),
    ({"jars": ("relative.jar",)}, "spec.jars[0]", "absolute path"),
    ({"jars": ("ftp://h/x.jar",)}, "spec.jars[0]", "http(s)"),
    ({"jars": ("/a.jar,/b.jar",)}, "spec.jars[0]", "absolute path"),
    ({"mode": LeaseMode.LOCAL, "sharing": LeaseSharing.SHARED}, "spec.sharing", "EXCLUSIVE"),
]


@pytest.mark.parametrize(("fields", "field", "expected"), BAD, ids=[f"{f}-{i}" for i, (_, f, _) in enumerate(BAD)])
def test_what_is_wrong_is_refused_with_its_field_and_what_would_be_right(make_profile, fields, field, expected):
    error = refused(make_profile(), **fields)
    assert error.field == field
    assert expected in error.expected
    assert len(error.message) < 1000


BROKERS = {
    "spark.driver.memory": "driver.memory", "spark.driver.cores": "driver.cores", "spark.jars.packages": "use packages",
    "spark.executor.memory": "executors.size.memory", "spark.executor.cores": "executors.size.cores",
    "spark.executor.instances": "executors.max_count", "spark.jars": "use jars", "spark.master": "use profile",
    "spark.driver.memoryOverhead": "driver.memory_overhead", "spark.submit.deployMode": "spark-submit",
    "spark.connect.grpc.binding.port": "itself", "spark.connect.authenticate.token": "itself",
    "spark.driver.host": "itself", "spark.memory.offHeap.size": "driver.memory",
}  # fmt: skip


@pytest.mark.parametrize(("key", "instead"), BROKERS.items())
def test_what_the_broker_decides_is_never_taken_and_the_field_is_named(make_profile, key, instead):
    profile = make_profile(allowed_conf=("spark.*", key))
    error = refused(profile, conf={key: "1"})
    assert instead in error.expected


@pytest.mark.parametrize(
    "key",
    [
        "spark.driver.extraJavaOptions", "spark.executor.extraClassPath", "spark.plugins", "spark.extraListeners",
        "spark.kubernetes.namespace", "spark.ui.port", "spark.connect.extensions.relation.classes",
        "spark.driver.defaultJavaOptions", "spark.sql.extensions", "spark.jars.ivySettings", "spark.pyspark.python",
    ],
)  # fmt: skip
def test_what_loads_code_needs_its_exact_key_on_the_list(make_profile, key):
    assert "exact key" in refused(make_profile(allowed_conf=("spark.*",)), conf={key: "1"}).expected
    assert asked(make_profile(allowed_conf=(key,)), conf={key: "1"}).conf[key] == "1"


def test_a_profile_bounds_what_may_be_asked(make_profile):
    limits = Limits(
        driver_cores=2, driver_memory=2 * GIB, executor_count=4, executor_cores=3, executor_memory=4 * GIB,
        max_duration=100.0,
    )  # fmt: skip
    profile = make_profile(limits=limits)
    for fields, field, bound in (
        ({"driver": SizeRequest(cores=3)}, "spec.driver.cores", "2"),
        ({"driver": SizeRequest(memory="3g")}, "spec.driver.memory", "2g"),
        ({"executors": ExecutorRequest(max_count=5)}, "spec.executors.max_count", "4"),
        ({"executors": ExecutorRequest(size=SizeRequest(cores=4))}, "spec.executors.size.cores", "3"),
        ({"executors": ExecutorRequest(size=SizeRequest(memory="5g"))}, "spec.executors.size.memory", "4g"),
        ({"max_duration": 101.0}, "spec.max_duration", "100s"),
    ):
        error = refused(profile, **fields)
        assert (error.field, f"at most {bound}" in error.expected) == (field, True)
    assert asked(profile).max_duration == 100.0


def test_a_profile_says_which_modes_queues_and_packages(make_profile):
    assert refused(make_profile(modes=(LeaseMode.LOCAL,))).field == "spec.mode"
    only = make_profile(queues=("etl",))
    assert asked(only, queue="etl").queue == "etl"
    assert "`etl`" in refused(only, queue="adhoc").expected
    assert refused(make_profile(allow_packages=False), packages=("g:a:1",)).field == "spec.packages"
    assert refused(make_profile(allow_packages=False), jars=("/a.jar",)).field == "spec.jars"


def test_endpoints_that_run_already_take_no_size_and_no_jars(make_profile):
    static = make_profile(provisioner="static")
    assert asked(static, driver=SizeRequest(cores=1)) == static.defaults
    assert refused(static, driver=SizeRequest(cores=2)).field == "spec.driver"
    assert refused(static, executors=ExecutorRequest(max_count=9)).field == "spec.executors"
    assert refused(static, packages=("g:a:1",)).field == "spec.packages"


TEXTS = st.text(max_size=20)


@given(
    st.builds(
        SpecRequest,
        queue=TEXTS, driver=st.none() | st.builds(SizeRequest, cores=st.integers(), memory=TEXTS, memory_overhead=TEXTS),
        executors=st.none() | st.builds(ExecutorRequest, min_count=st.integers(), max_count=st.integers()),
        conf=st.dictionaries(TEXTS, TEXTS, max_size=3), packages=st.lists(TEXTS, max_size=2).map(tuple),
        jars=st.lists(TEXTS, max_size=2).map(tuple), priority=st.none() | st.integers(),
        labels=st.dictionaries(TEXTS, TEXTS, max_size=3), ttl=st.none() | st.floats(), max_duration=st.none() | st.floats(),
    )
)  # fmt: skip
def test_any_request_gives_a_spec_or_an_invalid_field(make_profile, request):
    try:
        spec = resolve(request, make_profile(), queues=QUEUES, default_queue="adhoc")
    except InvalidField as error:
        assert error.field.startswith("spec.")  # noqa: PT017 - either outcome is right
    else:
        assert spec.driver.cores > 0
        assert math.isfinite(spec.ttl)


def test_what_can_never_fit_is_refused_with_the_numbers(spec):
    queue = Queue(name="etl", nominal=Resources({"cpu": 8000}))
    pool = Resources.of(cores=16, memory=4 * GIB)
    ensure_can_ever_fit(spec, Resources.of(cores=8, memory=4 * GIB), queue, pool)
    with pytest.raises(NeverFits, match=r"^asks 64 cores; queue `etl` may use 8 cores: ask for less \(driver\.cores\)"):
        ensure_can_ever_fit(spec, Resources.of(cores=64), queue, pool)
    with pytest.raises(NeverFits, match=r"^asks 8 GiB of memory; the pool `local` has 4 GiB of memory: .*capacity"):
        ensure_can_ever_fit(spec, Resources.of(cores=1, memory=8 * GIB), queue, pool, pool="local")
    with pytest.raises(NeverFits, match=r"asks 1 endpoint; its pool has 0 endpoint"):
        ensure_can_ever_fit(spec, Resources({"endpoint": 1}), queue, pool)


def test_keys_request_ids_and_words():
    identity = "1B4E28BA-2FA1-11D2-883F-0016D3CCA427"
    assert check_request_id(identity) == identity.lower()
    for text in ("", "x", identity[:-1], f"{{{identity}}}", "0" * 8 + "-0000-0000-0000-" + "0" * 12, identity + "\n"):
        with pytest.raises(InvalidField, match="request_id"):
            check_request_id(text)
    assert check_key("dag/run/task/3 ü") == "dag/run/task/3 ü"
    for key in ("x" * 257, "a\0b", "a\nb", "\ud800"):
        with pytest.raises(InvalidField, match="lease_key"):
            check_key(key)
    assert check_text("holder", "x" * 256, 256)
