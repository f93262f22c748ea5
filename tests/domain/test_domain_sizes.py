"""Bounds to many sizes say what asking each one says."""

from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.capacity.floors import UNLIMITED, Floor, Size, Sizes, Smallest, fits
from sparkbroker.broker.domain.capacity.resources import Resources

NAMES = ["cpu", "memory", "gpu"]
QUANTITIES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5))
ROOM = st.dictionaries(st.sampled_from(NAMES), st.integers(-1, 6))


def sizes_of(amounts: list[dict[str, int]]) -> list[Size]:
    known = Sizes()
    return [known.of("local", Resources(amount)) for amount in amounts]


@given(amounts=st.lists(QUANTITIES, max_size=8), room=ROOM)
def test_the_smallest_say_whether_there_is_room_for_any(amounts, room):
    sizes = sizes_of(amounts)
    assert Smallest(sizes).any_fits(room) == any(fits(size.asks, room) for size in sizes)


@given(amounts=st.lists(QUANTITIES, max_size=8), room=ROOM, unlisted=st.sampled_from([0, UNLIMITED]))
def test_a_floor_excludes_none_that_fits(amounts, room, unlisted):
    sizes = sizes_of(amounts)
    one_by_one, at_once, of_both = Floor(), Floor(), Floor()
    for size in sizes:
        one_by_one.add(size.asks)
    at_once.add_all(sizes)
    of_both.add_floor(one_by_one)
    of_both.add_floor(Floor())
    assert one_by_one.least == at_once.least == of_both.least
    if any(fits(size.asks, room, unlisted) for size in sizes):
        assert not at_once.excludes(room, unlisted)


@given(amount=QUANTITIES, room=ROOM)
def test_a_floor_of_one_excludes_what_does_not_fit(amount, room):
    (size,) = sizes_of([amount])
    floor = Floor()
    floor.add(size.asks)
    assert floor.excludes(room) != fits(size.asks, room)
    assert Floor().excludes(room)


def test_equal_sizes_are_one():
    sizes = Sizes()
    asked = sizes.of("local", Resources({"cpu": 1, "gpu": 0}))
    assert asked is sizes.of("local", Resources({"cpu": 1}))
    assert asked is not sizes.of("other", Resources({"cpu": 1}))
    assert asked.asks == (("cpu", 1),)
