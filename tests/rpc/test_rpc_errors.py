"""The table of errors, and what a status carries."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from sparkbroker.broker.domain import errors
from sparkbroker.broker.ports import store
from sparkbroker.broker.rpc.errors import DETAILS_KEY, INTERNAL_MESSAGE, MAX_MESSAGE, TABLE, failure, wire_code


def classes():
    found = {
        kind
        for module in (errors, store)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, errors.BrokerError)
    }
    return sorted(found, key=lambda kind: kind.__name__)


def make(kind):
    if kind is errors.InvalidField:
        return kind("spec.ttl", "is negative", "it must be positive")
    if kind is errors.ProvisionerFailed:
        return kind("it failed", retryable=False, zone="a")
    return kind("it failed", zone="a")


def details(error):
    status = status_pb2.Status.FromString(dict(failure(error).trailing)[DETAILS_KEY])
    found = {}
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                detail.Unpack(found[kind])
    return status, found


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own(kind):
    assert kind in TABLE


def test_reasons_are_unique():
    reasons = [kind.reason for kind in TABLE]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", list(TABLE), ids=lambda kind: kind.__name__)
def test_a_status_carries_code_and_error_info(kind):
    error = make(kind)
    told = failure(error)
    status, found = details(error)
    info = found[error_details_pb2.ErrorInfo]
    assert told.code is not grpc.StatusCode.OK
    assert status.code == told.code.value[0] == wire_code(error)
    assert status.message == told.message
    assert (info.reason, info.domain) == (kind.reason, "sparkbroker")
    if told.code is grpc.StatusCode.INTERNAL:
        assert (told.message, dict(info.metadata)) == (INTERNAL_MESSAGE, {})
    elif kind is not errors.InvalidField:
        assert dict(info.metadata) == {"zone": "a"}


def test_an_invalid_field_is_a_violation():
    _, found = details(errors.InvalidField("spec.ttl", "is negative", "it must be positive"))
    (violation,) = found[error_details_pb2.BadRequest].field_violations
    assert (violation.field, violation.description) == ("spec.ttl", "is negative; it must be positive")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.Unavailable("x"), 1.0),
        (errors.Unavailable("x", retry_after=0.0015), 0.002),
        (errors.TooMany("x", retry_after=7), 7.0),
        (errors.NotFound("x"), None),
        (errors.NotFound("x", retry_after=3), 3.0),
    ],
)
def test_retry_info_says_how_long(error, seconds):
    _, found = details(error)
    retry = found.get(error_details_pb2.RetryInfo)
    assert (retry and retry.retry_delay.ToTimedelta().total_seconds()) == seconds


def test_a_provisioner_that_may_recover_is_unavailable():
    assert failure(errors.ProvisionerFailed("x", retryable=True)).code is grpc.StatusCode.UNAVAILABLE
    assert failure(errors.ProvisionerFailed("x", retryable=False)).code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_subclass_without_a_row_takes_its_parents():
    class Special(errors.NotFound):
        pass

    assert failure(Special("x")).code is grpc.StatusCode.NOT_FOUND


def test_long_messages_are_cut_where_it_shows():
    told = failure(errors.NotFound("é" * 100_000, resource="r" * 100_000))
    assert len(told.message) == MAX_MESSAGE
    assert told.message.endswith("…")
    # Clients refuse more than 8 KiB of trailers: the message percent-encoded, and the details in base64.
    assert 6 * len(told.message) + 4 / 3 * sum(len(value) for _, value in told.trailing) < 8192 + 2048


def test_what_is_not_ours_tells_nothing():
    told = failure(ValueError("password=hunter2"))
    assert (told.code, told.message) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)
