import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.asking.sizing import charge, container, single_process
from sparkbroker.broker.domain.capacity.resources import (
    CPU,
    MAX_MEMORY,
    MEMORY,
    MIB,
    Resources,
    format_memory,
    overhead,
    parse_cpu,
    parse_memory,
)
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.lease import ContainerSize, ExecutorSpec, LeaseMode

GIB = 1024 * MIB
QUANTITIES = st.dictionaries(st.sampled_from([CPU, MEMORY, "endpoint"]), st.integers(0, 2**60)).map(Resources)


@given(st.integers(1, MAX_MEMORY // MIB))
def test_memory_is_read_as_it_is_written(mebibytes):
    assert parse_memory(format_memory(mebibytes * MIB), "f") == mebibytes * MIB


@given(st.integers(1, 1024), st.sampled_from("mgt"), st.sampled_from(["", "b", "i", "ib", "B", "iB"]))
def test_memory_units_may_be_written_in_several_ways(number, unit, suffix):
    assert parse_memory(f"{number}{unit.upper()}{suffix}", "f") == parse_memory(f"{number}{unit}", "f")


@pytest.mark.parametrize(
    ("text", "amount"), [("2g", 2 * GIB), ("1536m", 1536 * MIB), ("512", 512 * MIB), ("1024k", MIB), ("1024t", 1 << 50)]
)
def test_memory_examples(text, amount):
    assert parse_memory(text, "f") == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-1g",
        "1e99",
        "2gg",
        "nan",
        "inf",
        "1.5g",
        "0",
        "0g",
        "1k",
        "1025t",
        str(2**63),
        "9" * 30,
        "٣g",
        "g",
    ],
)
def test_what_is_no_memory_size_is_refused_by_name(text):
    with pytest.raises(InvalidField) as error:
        parse_memory(text, "spec.driver.memory")
    assert error.value.field == "spec.driver.memory"


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_an_invalid_field(text):
    for parse in (parse_memory, parse_cpu):
        try:
            assert parse(text, "f") > 0
        except InvalidField as error:
            assert error.field == "f"  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(("text", "milli"), [("8", 8000), ("0.5", 500), ("500m", 500), ("0.001", 1)])
def test_cpu_examples(text, milli):
    assert parse_cpu(text, "f") == milli


@pytest.mark.parametrize("text", ["", "-1", "0", "0m", "1.0001", "1e3", "nan", "100001", "0x1"])
def test_what_is_no_number_of_cores_is_refused(text):
    with pytest.raises(InvalidField):
        parse_cpu(text, "f")


@pytest.mark.parametrize(
    ("memory", "named", "total"),
    [(3 * GIB, None, 3456), (1500 * MIB, None, 1884), (2560 * MIB, 200 * MIB, 2760), (10 * GIB, None, 11264)],
)
def test_sizes_are_those_that_spark_gives_its_pods(memory, named, total):
    size = container(ContainerSize(cores=1, memory=memory, overhead=named))
    assert size.heap + size.overhead == total * MIB


def test_the_overhead_factor_is_truncated_as_spark_does():
    # 10 GiB with the factor .25 and 1 GiB off-heap was seen as 13824 MiB.
    assert 10 * GIB + overhead(10 * GIB, factor=0.25) + GIB == 13824 * MIB
    assert overhead(3841 * MIB) == 384 * MIB
    assert overhead(3850 * MIB) == 385 * MIB


@given(QUANTITIES, QUANTITIES)
def test_sums_and_bounds(one, other):
    assert one + other == other + one
    assert (one + other) - other == Resources({n: one[n] for n in (one + other).quantities})
    assert one.fits(one.maximum(other))
    assert one.fits(other) is (one.lacking(other) == ())


def test_nothing_is_negative():
    with pytest.raises(ValueError, match="does not fit"):
        Resources({CPU: 1}) - Resources({CPU: 2})


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 20), st.integers(256, 65536), st.integers(256, 65536))
def test_one_process_is_charged_for_driver_and_executors(make_profile, cores, each, count, heap, each_heap):
    profile = make_profile()
    spec = _sized(profile.defaults, cores, each, count, heap, each_heap)
    size = single_process(spec)
    assert size.threads == cores + count * each
    assert size.heap == (heap + count * each_heap) * MIB
    assert charge(spec, profile) == Resources.of(cores=size.threads, memory=size.heap + overhead(size.heap))


@given(st.integers(0, 20), st.integers(256, 65536), st.integers(256, 65536))
def test_processes_of_their_own_have_overheads_of_their_own(make_profile, count, heap, each_heap):
    profile = make_profile(master="spark://127.0.0.1:7077")
    spec = _sized(profile.defaults, 1, 2, count, heap, each_heap)
    driver, executor = heap * MIB + overhead(heap * MIB), each_heap * MIB + overhead(each_heap * MIB)
    assert charge(spec, profile) == Resources.of(cores=1 + 2 * count, memory=driver + count * executor)


def test_a_local_lease_and_static_endpoints(make_profile):
    cluster = make_profile(master="spark://127.0.0.1:7077")
    local = msgspec.structs.replace(cluster.defaults, mode=LeaseMode.LOCAL)
    assert charge(local, cluster) == single_process(local).resources
    assert charge(local, make_profile(provisioner="static")) == Resources({"endpoint": 1})
    assert charge(local, make_profile(provisioner="static", shared_endpoints=True)) == Resources()


def _sized(spec, cores, each, count, heap, each_heap):
    executors = ExecutorSpec(size=ContainerSize(cores=each, memory=each_heap * MIB), min_count=0, max_count=count)
    return msgspec.structs.replace(spec, driver=ContainerSize(cores=cores, memory=heap * MIB), executors=executors)
