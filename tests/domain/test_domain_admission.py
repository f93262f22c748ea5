import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkbroker.broker.domain.admission.cycle import Admission, Waiting
from sparkbroker.broker.domain.capacity.ledger import Ledger
from sparkbroker.broker.domain.capacity.queue import Queue, priority_key
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.lease import LeaseReason
from sparkbroker.broker.domain.units import LeaseId, Seconds, ServingTime

POOL = 16


class World:
    """Queues over one pool (and another), with what runs in it."""

    def __init__(self, quotas: dict[str, int], pool: int = POOL, budget: int = 16) -> None:
        self.queues = {n: Queue(name=n, nominal=Resources.of(cores=c), bypass_budget=budget) for n, c in quotas.items()}
        self.pools = {"local": Resources.of(cores=pool), "other": Resources.of(cores=pool)}
        self.ledger = Ledger({name: queue.nominal for name, queue in self.queues.items()}, self.pools)
        self.admission = Admission(self.queues)
        self.running: list[str] = []
        self.clock = 0

    def add(self, name: str, queue: str, cores: int, priority: int = 0, pool: str = "local") -> None:
        self.clock += 1
        amount = Resources.of(cores=cores)
        self.admission.add(
            Waiting(
                lease_id=LeaseId(name), queue=queue, pool=pool, amount=amount, priority=priority,
                enqueued=ServingTime(self.clock),
            )
        )  # fmt: skip

    def admit(self, complete: bool = True) -> list[str]:
        names = []
        while True:
            admitted = self.admission.admit_next(self.ledger, lambda w: f"d-{w.lease_id}", inventory_complete=complete)
            if admitted is None:
                break
            assert admitted.owner in self.ledger
            names.append(str(admitted.waiting.lease_id))
        self.running += names
        return names

    def end(self, name: str) -> None:
        self.running.remove(name)
        self.ledger.release(f"d-{name}")

    def why(self, name: str, complete: bool = True) -> tuple[LeaseReason, str]:
        waits = self.admission.progress(LeaseId(name), self.ledger, inventory_complete=complete)
        return waits.reason, waits.message


def test_the_key_orders_by_time_and_priority_and_time_wins_in_the_end():
    step = Seconds(60.0)
    assert priority_key(ServingTime(100.0), 1, step) < priority_key(ServingTime(50.0), 0, step)
    assert priority_key(ServingTime(100.0), 1, step) > priority_key(ServingTime(30.0), 0, step)


def test_the_order_is_priority_then_time_then_id():
    world = World({"q": 1})
    world.add("c", "q", 1)
    world.add("b", "q", 1, priority=1)
    world.add("a", "q", 1)
    order = []
    while world.admission:
        order += world.admit()
        world.end(order[-1])
    assert order == ["b", "c", "a"]


def test_between_queues_the_one_that_waited_longest_is_first():
    world = World({"q1": 9, "q2": 9}, pool=2)
    for name, queue in (("a", "q2"), ("b", "q1"), ("c", "q2")):
        world.add(name, queue, 1)
    assert world.admit() == ["a", "b"]


@pytest.mark.promise(1)
def test_nothing_is_admitted_before_the_inventory_is_complete():
    world = World({"q": 4})
    world.add("a", "q", 1)
    assert world.admit(complete=False) == []
    assert world.why("a", complete=False)[0] is LeaseReason.INVENTORY
    assert world.admit() == ["a"]


@pytest.mark.promise(13)
def test_a_blocked_queue_delays_no_other():
    world = World({"stuck": 4, "free": 8}, budget=1)
    world.add("holder", "stuck", 4)
    world.admit()
    for i in range(50):
        world.add(f"s{i}", "stuck", 4)
    for i in range(40):
        world.add(f"f{i}", "free", 1)
        assert world.admit() == [f"f{i}"]
        world.end(f"f{i}")
    assert world.running == ["holder"]


@pytest.mark.promise(13)
def test_after_its_budget_a_large_lease_is_not_passed_in_its_queue():
    world = World({"q": 4}, budget=3)
    world.add("first", "q", 1)
    world.admit()
    world.add("large", "q", 4)
    for i in range(3):
        world.add(f"s{i}", "q", 1)
    assert world.admit() == ["s0", "s1", "s2"]
    world.end("s0")
    world.add("late", "q", 1)
    assert world.admit() == []
    assert world.why("late")[0] is LeaseReason.RESERVED_FOR_ANOTHER
    assert "keeps 4 cores for a lease of queue `q` that 3 others have passed" in world.why("late")[1]
    for name in ("s1", "s2", "first"):
        world.end(name)
    assert world.admit() == ["large"]


@pytest.mark.promise(13)
def test_after_its_budget_a_large_lease_is_not_passed_in_its_pool_by_other_queues():
    world = World({"big": 16, "small": 16}, budget=3)
    world.add("s", "small", 1)
    world.admit()
    world.add("large", "big", 16)
    assert world.admit() == []
    for i in range(3):
        world.add(f"s{i}", "small", 1)
        assert world.admit() == [f"s{i}"]
    world.add("late", "small", 1)
    world.add("elsewhere", "small", 1, pool="other")
    assert world.admit() == ["elsewhere"]
    assert world.why("late")[0] is LeaseReason.RESERVED_FOR_ANOTHER
    assert "pool `local` keeps 16 cores for a lease of queue `big`" in world.why("late")[1]
    for name in ("s", "s0", "s1", "s2"):
        world.end(name)
    assert world.admit() == ["large"]
    world.end("large")
    assert world.admit() == ["late"]


@pytest.mark.promise(13)
def test_what_becomes_free_goes_to_the_first_that_it_is_enough_for():
    world = World({"q": 4})
    for name in "abcd":
        world.add(name, "q", 1)
    world.admit()
    world.add("large", "q", 3)
    world.add("small", "q", 1)
    assert world.admit() == []
    world.end("a")
    assert world.admit() == ["small"]


def test_when_the_large_lease_leaves_its_queue_goes_on():
    world = World({"q": 4}, budget=1)
    world.add("a", "q", 1)
    world.admit()
    world.add("large", "q", 4)
    world.add("b", "q", 1)
    world.add("late", "q", 1)
    assert world.admit() == ["b"]
    assert world.admission.remove(LeaseId("large"))
    assert world.admit() == ["late"]


def test_when_the_large_lease_leaves_what_waited_for_it_goes_on():
    world = World({"big": 16, "small": 16}, budget=1)
    world.add("s", "small", 1)
    world.admit()
    world.add("large", "big", 16)
    world.admit()
    world.add("s0", "small", 1)
    world.admit()
    world.add("late", "small", 1)
    assert world.admit() == []
    assert world.admission.remove(LeaseId("large"))
    assert not world.admission.remove(LeaseId("large"))
    assert world.admit() == ["late"]


@pytest.mark.promise(13)
def test_two_large_leases_that_have_reservations_do_not_block_each_other():
    world = World({"a": 16, "b": 16, "small": 16}, budget=1)
    world.add("s", "small", 1)
    world.admit()
    world.add("la", "a", 16)
    world.add("lb", "b", 16)
    world.admit()
    world.add("s1", "small", 1)
    assert world.admit() == ["s1"]
    assert "2 reserved" in repr(world.admission)
    world.end("s")
    world.end("s1")
    assert world.admit() == ["la"]
    world.end("la")
    assert world.admit() == ["lb"]


def test_what_can_no_longer_fit_holds_up_nobody():
    world = World({"q": 8, "p": 8}, budget=1)
    world.add("busy", "q", 1)
    world.admit()
    for i in range(40):
        world.add(f"large{i}", "q", 8)
    world.admit()
    nominal = {"q": Resources.of(cores=4), "p": Resources.of(cores=8)}
    world.ledger.reconfigure(nominal, world.pools)
    world.add("small", "q", 1)
    assert world.admit() == ["small"]
    assert world.why("large0") == (
        LeaseReason.QUEUE_QUOTA,
        "queue `q` has 4 cores in all; this asks 8 cores: release it and ask for less",
    )
    world.ledger.reconfigure({"p": nominal["p"]}, world.pools)
    assert "no longer configured" in world.admission.blocking_message("q", world.ledger)


def test_reasons_have_the_numbers():
    world = World({"etl": 8, "adhoc": 16})
    for name in "abc":
        world.add(name, "etl", 2)
    world.admit()
    world.add("d", "etl", 4)
    world.add("e", "etl", 4)
    world.add("f", "etl", 1)
    message = "queue `etl` has 6 of 8 cores in use by 3 leases; this asks 4 cores"
    assert world.why("d") == (LeaseReason.QUEUE_QUOTA, message)
    assert world.why("e") == (LeaseReason.QUEUE_QUOTA, f"{message}; 1 lease stands before it in queue `etl`")
    assert world.why("f") == (LeaseReason.BEHIND_OTHERS, "2 leases stand before it in queue `etl`")
    assert world.admission.blocking_message("etl", world.ledger) == message
    assert world.admission.blocking_message("adhoc", world.ledger) == ""
    waits = world.admission.progress(LeaseId("f"), world.ledger)
    assert (waits.position, waits.queue_length, world.admission.queue_length("etl")) == (3, 3, 3)
    world.add("g", "adhoc", 11)
    assert world.why("g") == (
        LeaseReason.CAPACITY,
        "pool `local` has 6 of 16 cores in use by 3 leases; this asks 11 cores",
    )
    assert repr(world.admission) == "<Admission [4 queued in 2 queues, 0 reserved]>"


def test_a_lease_waits_once_and_a_failing_owner_changes_nothing():
    world = World({"q": 4})
    world.add("a", "q", 1)
    with pytest.raises(ValueError, match="waits already"):
        world.add("a", "q", 1)

    def fails(waiting: Waiting) -> str:
        raise RuntimeError(waiting.lease_id)

    with pytest.raises(RuntimeError):
        world.admission.admit_next(world.ledger, fails)
    assert len(world.ledger) == 0
    assert world.admit() == ["a"]


def test_new_queues_keep_those_who_wait_and_what_is_kept_for_them():
    world = World({"q": 4}, budget=1)
    world.add("first", "q", 1)
    world.admit()
    world.add("large", "q", 4)
    world.add("s0", "q", 1)
    assert world.admit() == ["s0"]
    world.admission.reconfigure({"q": Queue(name="q", nominal=Resources.of(cores=4), priority_step=Seconds(1.0))})
    world.add("s1", "q", 1)
    assert world.admit() == []
    world.end("first")
    world.end("s0")
    assert world.admit() == ["large"]


QUEUE = st.sampled_from(["a", "b", "c"])
ROUND = st.tuples(st.lists(st.tuples(QUEUE, st.integers(1, 5)), min_size=1, max_size=4), st.integers(0, 100))


@pytest.mark.promise(13)
@settings(max_examples=60, deadline=None)
@given(
    large=st.lists(st.tuples(QUEUE, st.integers(10, POOL)), min_size=1, max_size=4),
    rounds=st.lists(ROUND, min_size=1, max_size=8),
)
def test_a_large_lease_is_never_starved_whoever_comes_after_it(large, rounds):
    """The adversary adds small leases for ever, and chooses which one ends; but in every second round it is the one
    that has run longest, since of what never ends nothing can be promised."""
    world = World({"a": POOL, "b": POOL, "c": POOL}, budget=4)
    for i in range(POOL):
        world.add(f"first{i}", "abc"[i % 3], 1)
    world.admit()
    for i, (queue, cores) in enumerate(large):
        world.add(f"large{i}", queue, cores)
    waiting = {f"large{i}" for i in range(len(large))}
    # Each is passed 4 times at most in its queue once it is first, and then at most 16 have to end: in 2 rounds each.
    for turn in range(2 * (len(large) + 1) * (4 + POOL)):
        arrivals, choice = rounds[turn % len(rounds)]
        for i, (queue, cores) in enumerate(arrivals):
            world.add(f"s{turn}-{i}", queue, cores)
        waiting -= set(world.admit())
        if not waiting:
            return
        world.end(world.running[choice % len(world.running) if turn % 2 else 0])
        waiting -= set(world.admit())
    pytest.fail(f"{waiting} still wait; {world.admission} {world.ledger}")


def calls(do: Callable[[], object]) -> int:
    """How many functions, also built-in ones, are called: the same each time, however busy the machine is."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 4, 8, 11, 13)], ids=["equal", "mixed"])
def test_a_step_costs_about_as_much_with_100_queues_as_with_one(sizes):
    def mean(queues: int) -> float:
        world = World({f"q{i}": POOL for i in range(queues)}, pool=POOL)
        for i in range(2000):
            world.add(f"l{i:04}", f"q{i % queues}", sizes[i % len(sizes)])
        world.admit()
        cost = 0
        for turn in range(300):
            world.end(world.running[(turn * 7) % len(world.running)])
            cost += calls(world.admit)
        return cost / 300

    one, many = mean(1), mean(100)
    assert many < 4 * one, f"{one:.0f} calls with 1 queue, {many:.0f} with 100"
