"""Which connections are closed when there are too many."""

from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.rpc.crowding import ARRIVAL, Connection, surplus
from sparkbroker.broker.rpc.limits import Limits

NOW = 1000.0
LIMITS = Limits(
    connections=8,
    connections_per_principal=4,
    unauthenticated_connections=3,
    unauthenticated_seconds=10.0,
    refusals_per_connection=5,
)


def connection(name, *, address="a", age=1.0, idle=None, principal="", calls=0, refused=0):
    return Connection(
        name=name,
        address=address,
        since=NOW - age,
        used=NOW - (age if idle is None else idle),
        principal=Principal(principal),
        calls=calls,
        refused=refused,
    )


def closed(*connections, limits=LIMITS):
    return {each.name: each.limit for each in surplus(connections, limits, NOW)}


def test_who_shows_no_token_has_so_long():
    assert closed(connection("new", age=9), connection("old", age=11)) == {"old": "unauthenticated_seconds"}
    assert closed(connection("probe", age=1000, idle=9)) == {}
    assert closed(connection("health watch", age=1000, calls=1)) == {}
    assert closed(connection("holder", age=1000, principal="ann")) == {}


def test_who_tries_tokens_is_closed():
    assert closed(connection("guesses", refused=5), connection("typo", refused=4)) == {
        "guesses": "refusals_per_connection"
    }


def test_once_a_call_had_a_token_refused_calls_close_nothing():
    proxy = connection("proxy", refused=4)
    proxy.authenticate(Principal("ann"))
    for _ in range(100):
        assert proxy.refuse() == 0
    assert closed(proxy) == {}


def test_of_too_many_strangers_the_oldest_of_the_largest_crowd_go():
    crowd = [connection(f"crowd{n}", address="crowd", age=n) for n in range(2, 5)]
    lone = connection("lone", address="lone", age=9)
    for order in ((lone, *crowd), (*crowd, lone)):
        assert closed(*order) == {"crowd4": "unauthenticated_connections"}


def test_many_that_come_at_once_have_time_for_their_first_call_while_there_is_room():
    herd = [connection(f"herd{n}", age=1.9) for n in range(4)]
    assert closed(*herd) == {}
    assert len(closed(*(connection(f"late{n}", age=2.0) for n in range(4)))) == 1
    holder = connection("holder", principal="ann", calls=1)
    assert set(closed(*herd, holder).values()) == {"unauthenticated_connections"}  # more than half of all


def test_a_principal_with_too_many_loses_idle_ones_first_and_then_the_newest():
    busy = [connection(f"busy{n}", principal="ann", calls=1, age=n) for n in range(1, 5)]
    idle = [connection(f"idle{n}", principal="ann", idle=n, age=9) for n in range(1, 3)]
    other = connection("other", principal="bob", age=9)
    assert closed(*busy, *idle, other) == dict.fromkeys(("idle1", "idle2"), "connections_per_principal")
    more = connection("newest", principal="ann", calls=1, age=0.5)
    assert closed(*busy, more, other) == {"newest": "connections_per_principal"}


connections = st.lists(
    st.builds(
        connection,
        st.uuids().map(str),
        address=st.sampled_from("abc"),
        age=st.floats(0, 20),
        principal=st.sampled_from(("", "ann", "bob", "eve")),
        calls=st.integers(0, 2),
        refused=st.integers(0, 6),
    ),
    max_size=40,
    unique_by=lambda each: each.name,
)


@given(connections)
def test_what_is_left_is_within_the_limits_and_no_holder_pays_for_others(present):
    gone = closed(*present)
    left = [each for each in present if each.name not in gone]
    strangers = [each for each in left if not each.principal]
    if len(present) > LIMITS.connections:
        assert len(strangers) <= LIMITS.unauthenticated_connections
    assert sum(NOW - each.since >= ARRIVAL for each in strangers) <= LIMITS.unauthenticated_connections
    for principal in ("ann", "bob", "eve"):
        own = [each for each in present if each.principal == principal]
        assert sum(each.principal == principal for each in left) <= LIMITS.connections_per_principal
        for each in own:
            if each.calls and each.name in gone:
                assert len(own) > LIMITS.connections_per_principal, "a holder was closed for what others did"
    idle = [each for each in left if each.principal and not each.calls]
    assert len(left) - len(strangers) <= LIMITS.connections or not idle
    assert len(surplus(present, LIMITS, NOW)) == len(gone)
