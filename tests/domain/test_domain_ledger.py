import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.capacity.ledger import Lacking, Ledger, LimitKind
from sparkbroker.broker.domain.capacity.resources import MIB, Resources

GIB = 1024 * MIB


def cores(count: int) -> Resources:
    """Only cores: of memory nothing is said."""
    return Resources({"cpu": 1000 * count})


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(
        {"etl": cores(8), "adhoc": Resources.of(cores=8, memory=8 * GIB)},
        {"local": Resources.of(cores=10, memory=16 * GIB)},
    )


@pytest.mark.promise(1)
def test_what_does_not_fit_is_refused_and_changes_nothing(ledger):
    assert ledger.charge("a", "etl", "local", Resources.of(cores=8, memory=GIB))
    before = repr(ledger)
    assert not ledger.charge("b", "etl", "local", Resources.of(cores=1))
    assert not ledger.charge("b", "adhoc", "local", Resources.of(cores=3))
    assert (repr(ledger), len(ledger), "b" in ledger) == (before, 1, False)
    assert ledger.lacking("etl", "local", Resources.of(cores=1)) == Lacking(LimitKind.QUEUE, "etl", ("cpu",))
    assert ledger.lacking("adhoc", "local", Resources.of(cores=3)) == Lacking(LimitKind.POOL, "local", ("cpu",))
    assert ledger.charge("b", "adhoc", "local", Resources.of(cores=2, memory=8 * GIB))
    ledger.check()


def test_a_queue_limits_what_it_lists_and_a_pool_has_what_it_lists(ledger):
    assert ledger.fits("etl", "local", Resources.of(memory=16 * GIB))
    assert not ledger.fits("etl", "local", Resources({"endpoint": 1}))
    assert not ledger.fits("none", "local", Resources())
    assert not ledger.fits("etl", "none", Resources())
    assert ledger.fits("etl", "local", Resources())
    assert ledger.lacking("none", "local", Resources()) == Lacking(LimitKind.QUEUE, "none", ())


def test_an_owner_is_charged_once(ledger):
    assert ledger.charge("a", "etl", "local", Resources.of(cores=1))
    with pytest.raises(ValueError, match="charged already"):
        ledger.charge("a", "etl", "local", Resources.of(cores=1))
    assert ledger.charge("a", "adhoc", "local", Resources.of(cores=2), force=True)
    assert (ledger.used("etl"), ledger.used("adhoc")) == (Resources(), cores(2))
    ledger.check()


@pytest.mark.promise(1)
def test_what_runs_is_recorded_though_it_does_not_fit_and_then_nothing_is_admitted(ledger):
    assert ledger.charge("a", "etl", "local", Resources.of(cores=20), force=True)
    assert ledger.charge("u", "gone", "away", Resources.of(cores=1), force=True)
    assert not ledger.fits("adhoc", "local", Resources.of(cores=1))
    assert ledger.resize("a", Resources.of(cores=9))
    assert ledger.fits("adhoc", "local", Resources.of(cores=1))
    assert not ledger.fits("etl", "local", Resources.of(cores=1))
    assert not ledger.resize("nobody", Resources.of(cores=1))
    ledger.check()


@pytest.mark.promise(1)
def test_limits_lowered_below_what_is_in_use_admit_nothing_until_it_fits(ledger):
    for owner in "abcd":
        assert ledger.charge(owner, "etl", "local", Resources.of(cores=2))
    ledger.reconfigure({"etl": cores(4)}, {"local": cores(10)})
    assert not ledger.fits("adhoc", "local", Resources.of(cores=1))
    for owner in "ab":
        assert not ledger.fits("etl", "local", Resources.of(cores=1))
        ledger.release(owner)
    assert not ledger.fits("etl", "local", Resources.of(cores=1))
    ledger.release("c")
    ledger.release("c")
    assert ledger.fits("etl", "local", Resources.of(cores=2))
    ledger.check()


def test_it_shows_what_it_holds(ledger):
    ledger.charge("a", "etl", "local", Resources.of(cores=4))
    ledger.charge("b", "adhoc", "local", Resources.of(cores=1, memory=GIB))
    assert repr(ledger) == "<Ledger [2 charged, adhoc 1/8 cores 1 GiB/8 GiB of memory, etl 4/8 cores]>"
    assert (ledger.holders("etl"), ledger.pool_holders("local"), ledger.holders("none")) == (1, 2, 0)


NAMES = st.sampled_from("abcdef")
STEP = st.tuples(
    st.sampled_from(["charge", "force", "resize", "release", "configure"]), NAMES,
    st.sampled_from(["q1", "q2", "q3"]), st.sampled_from(["p1", "p2", "p3"]), st.integers(0, 6), st.integers(0, 6),
)  # fmt: skip


@pytest.mark.promise(1)
@given(st.lists(STEP, max_size=40))
def test_sums_are_exact_and_an_unforced_charge_never_exceeds_a_limit(steps):
    limits = {"q1": Resources({"cpu": 5}), "q2": Resources({"cpu": 9, "memory": 4})}
    pools = {"p1": Resources({"cpu": 8, "memory": 8}), "p2": Resources({"cpu": 3})}
    ledger = Ledger(limits, pools)
    for kind, owner, queue, pool, cpu, memory in steps:
        amount = Resources({"cpu": cpu, "memory": memory})
        version = ledger.version
        match kind:
            case "charge" if owner not in ledger:
                if ledger.charge(owner, queue, pool, amount):
                    assert ledger.version == version
                    for name in amount.quantities:
                        assert (
                            not amount[name]
                            or name not in limits[queue].quantities
                            or (ledger.used(queue)[name] <= limits[queue][name])
                        )
                        assert not amount[name] or ledger.pool_used(pool)[name] <= pools[pool][name]
            case "force":
                ledger.charge(owner, queue, pool, amount, force=True)
            case "resize":
                assert ledger.resize(owner, amount) is (owner in ledger)
            case "release":
                held = owner in ledger
                ledger.release(owner)
                assert ledger.version == version + held
            case "configure" if queue in limits:
                limits = {**limits, queue: Resources({"cpu": cpu})}
                ledger.reconfigure(limits, pools)
        ledger.check()


def test_who_waits_for_capacity_is_told_when_some_may_be_free():
    ledger, told = Ledger({"etl": cores(4)}, {"local": cores(8)}), []
    ledger.on_freed(lambda: told.append(len(ledger)))
    assert ledger.charge("a", "etl", "local", cores(2))
    assert ledger.resize("a", cores(3))
    assert not told, "nothing is free by that"
    assert ledger.resize("a", cores(1))
    ledger.release("a")
    ledger.release("a")
    assert told == [1, 0]
    ledger.reconfigure({"etl": cores(6)}, {"local": cores(8)})
    assert len(told) == 3
