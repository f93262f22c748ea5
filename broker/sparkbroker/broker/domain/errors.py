"""Every error that a caller can get, as data. ``rpc.errors`` maps each class to one gRPC status, in one table."""

from typing import ClassVar

from sparkbroker.broker.domain.text import escaped


class BrokerError(Exception):
    """The root. ``message`` is a sentence that says what was wrong and what would be right.

    ``reason`` becomes ``ErrorInfo.reason``, ``metadata`` its metadata, and ``retry_after`` (seconds) a ``RetryInfo``.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None, **metadata: str) -> None:
        message = escaped(message)
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        self.retry_after = retry_after


class InvalidField(BrokerError):
    """A field of the request is wrong: which, how, and what would be right."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, problem: str, expected: str) -> None:
        super().__init__(f"{field}: {problem}; {expected}", field=field)
        self.field = field
        self.problem = problem
        self.expected = expected


class RequestIdReused(BrokerError):
    """The caller has used this request_id for a different request."""

    reason = "REQUEST_ID_REUSED"


class NeverFits(BrokerError):
    """The request is larger than it could ever be granted, whatever ends."""

    reason = "NEVER_FITS"


class NotFound(BrokerError):
    """No such lease, queue or profile, or none that the caller may see."""

    reason = "NOT_FOUND"


class KeyInUse(BrokerError):
    """The lease key has a live lease, and ``on_existing`` doesn't allow for it."""

    reason = "LEASE_KEY_IN_USE"


class StaleGeneration(BrokerError):
    """The attachment was superseded, detached or lost: its generation is fenced off."""

    reason = "STALE_GENERATION"


class LeaseEnded(BrokerError):
    """The lease is RELEASING or terminal."""

    reason = "LEASE_ENDED"


class LeaseNotReady(BrokerError):
    """The lease is live, and what was asked needs it to be READY."""

    reason = "LEASE_NOT_READY"


class IllegalTransition(BrokerError):
    """A bug: the state table has no such step."""

    reason = "ILLEGAL_TRANSITION"


class Unauthenticated(BrokerError):
    """Who calls is unknown."""

    reason = "UNAUTHENTICATED"


class Forbidden(BrokerError):
    """The caller is known, and may not."""

    reason = "FORBIDDEN"


class TooMany(BrokerError):
    """A limit on live leases, watches, streams or requests is reached; waiting helps."""

    reason = "TOO_MANY"


class Compacted(BrokerError):
    """The events after the given revision are no longer all kept: read again, then watch from there."""

    reason = "COMPACTED"


class Unavailable(BrokerError):
    """The broker is starting, stopping or has lost its store; waiting helps."""

    reason = "UNAVAILABLE"


class ProvisionerFailed(BrokerError):
    """A provisioner could not do what it was asked. ``retryable``: another attempt may succeed."""

    reason = "PROVISIONER_FAILED"

    def __init__(self, message: str, *, retryable: bool, misconfigured: bool = False, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata
        self.retryable = retryable
        self.misconfigured = misconfigured
