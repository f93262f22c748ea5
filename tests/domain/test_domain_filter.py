import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.lease.event import EventType, LeaseEvent
from sparkbroker.broker.domain.lease.filter import LeaseFilter, parse_filter, parse_order
from sparkbroker.broker.domain.lease.lease import LeaseReason, LeaseState
from sparkbroker.broker.domain.units import LeaseId, Principal, Revision, WallTime


@pytest.fixture(scope="session")
def lease(make_lease, spec):
    labels = {"team": "x", "a.b/c": "1"}
    return make_lease(key='a/b "c" \\', state=LeaseState.READY, spec=msgspec.structs.replace(spec, labels=labels))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), ("  ", True), ("state=READY", True), ("state=ready", True), ("state!=READY", False),
        ("state=QUEUED", False), ("queue=etl AND profile=small", True), ("queue=etl and profile=big", False),
        ("queue=etl AnD principal!=bob", True), (r'key="a/b \"c\" \\"', True), ('key="a/b"', False),
        ("mode=CONNECT", True), ("mode=local", False), ("live=true", True), ("live=false", False),
        ("labels.team=x", True), ("labels.team!=x", False), ("labels.a.b/c=1", True), ('labels.none=""', True),
        ("labels.none!=x", True), (" queue = etl ", True), ("queue=and AND state=READY", False),
    ],
)  # fmt: skip
def test_filters(lease, text, expected):
    assert parse_filter(text).matches(lease) is expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour=red", "state, queue, profile"), ("state=BUSY", "QUEUED, PROVISIONING"), ("live=maybe", "true, false"),
        ("state", "write terms"), ("state=", "write terms"), ("state=READY queue=etl", "write terms"),
        ("state=READY AND", "write terms"), ("AND state=READY", "write terms"), ('key="x', "write terms"),
        (r'key="\n"', "write terms"), ("labels.=x", "labels.KEY"), ("state=READY OR live=true", "write terms"),
        ('key="a"AND live=true', "write terms"), ("queue=" + "x" * 1000, "1000"),
        (" AND ".join(["live=true"] * 21), "20"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_field_and_what_is_known(text, says):
    with pytest.raises(InvalidField) as error:
        parse_filter(text)
    assert error.value.field == "filter"
    assert says in error.value.expected


PIECES = ["state", "=", "!=", '"', "\\", " ", "AND", "labels.", "x", "READY", "live", "true", "key", "\n"]


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@example('key="\\')
def test_any_text_is_a_filter_or_an_invalid_field(lease, text):
    try:
        selection = parse_filter(text)
    except InvalidField as error:
        assert error.field == "filter"  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(selection, LeaseFilter)
        assert selection.matches(lease) in (True, False)


@given(st.text(max_size=100))
def test_any_value_can_be_quoted(make_lease, key):
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_filter(f'key="{quoted}"').matches(make_lease(key=key))
    assert not parse_filter(f'key!="{quoted}"').matches(make_lease(key=key))


def test_events_are_selected_by_what_does_not_change():
    event = LeaseEvent(
        revision=Revision(1), lease_id=LeaseId("l1"), type=EventType.STATE, state=LeaseState.READY,
        reason=LeaseReason.SERVING, message="", time=WallTime(1.0), attempt=1, principal=Principal("ann"),
        queue="etl", profile="small", key="k", labels={"team": "x"},
    )  # fmt: skip
    for text, expected in (
        ("state=QUEUED AND live=false AND mode=LOCAL", True),
        ("queue=etl AND labels.team=x AND key=k", True),
        ("queue!=etl", False),
        ("labels.team=y", False),
        ("principal=bob", False),
    ):
        assert parse_filter(text).matches_event(event) is expected


def test_orders():
    assert parse_order("") is True
    assert parse_order("create_time desc") is True
    assert parse_order(" create_time ") is False
    for text in ("name", "create_time up", "create_time desc desc"):
        with pytest.raises(InvalidField, match="order_by"):
            parse_order(text)
