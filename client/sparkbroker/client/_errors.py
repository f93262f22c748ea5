"""Every error of the client, as data. gRPC's errors become these once, in ``_status``."""

from collections.abc import Mapping, Sequence


class SparkbrokerError(Exception):
    """The root. ``message`` is a sentence that says what was wrong and, where something helps, what.

    ``reason`` is the broker's ``ErrorInfo.reason`` (or LeaseReason) if it told one, ``metadata`` its metadata, and
    ``retry_after`` the seconds after which the broker suggests another try.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class BadAddress(SparkbrokerError):
    """The broker's address or credential can't be used; names where it came from."""


class BrokerUnreachable(SparkbrokerError):
    """No answer: the broker is down, starting, stopping, or the way to it is cut."""


class BrokerFault(SparkbrokerError):
    """The broker failed in a way that no caller can mend, or answers with something that this client doesn't know."""


class ClientClosed(SparkbrokerError):
    """The client was closed, by this program, before or while this was asked of it."""


class WrongProcess(SparkbrokerError):
    """A lease was used in a forked child of the process that holds it."""


class NotAuthenticated(SparkbrokerError):
    """The broker doesn't know who calls: the token is missing, wrong or expired."""


class NotAllowed(SparkbrokerError):
    """The broker knows who calls, and they may not."""


class InvalidRequest(SparkbrokerError):
    """``field`` of the request is wrong. Empty: it concerns no single field."""

    def __init__(self, message: str, *, field: str = "", **data: object) -> None:
        super().__init__(message, **data)  # type: ignore[arg-type]
        self.field = field or self.metadata.get("field", "")


class RequestIdReused(InvalidRequest):
    """The request id was used before, for another request."""


class NeverFits(SparkbrokerError):
    """More than could ever be granted, whatever ends."""


class LeaseKeyInUse(SparkbrokerError):
    """The lease key has a live lease, and ``on_existing`` doesn't allow for it."""


class NotFound(SparkbrokerError):
    """What was named isn't there, or the caller may not see it."""


class LeaseNotFound(NotFound):
    """No such lease."""


class QueueNotFound(NotFound):
    """No such queue."""


class ProfileNotFound(NotFound):
    """No such profile."""


class LeaseNotReady(SparkbrokerError):
    """The lease is live, and what was asked needs it to be READY."""


class TooManyRequests(SparkbrokerError):
    """A limit of the broker's is reached; waiting helps."""


class EventsCompacted(SparkbrokerError):
    """The events after the revision asked for are no longer all kept: read again, and watch from there."""


class LeaseEnded(SparkbrokerError):
    """A lease has ended. ``state`` is the terminal one (or RELEASING), and ``reason`` the LeaseReason.

    ``exit_code``, ``signal``, ``out_of_memory`` and ``log_tail`` tell how its driver ended, if by itself.
    """

    def __init__(
        self,
        message: str,
        *,
        lease: str = "",
        state: str = "",
        exit_code: int | None = None,
        signal: str = "",
        out_of_memory: bool = False,
        log_tail: Sequence[str] = (),
        **data: object,
    ) -> None:
        super().__init__(message, **data)  # type: ignore[arg-type]
        self.lease = lease
        self.state = state
        self.exit_code = exit_code
        self.signal = signal
        self.out_of_memory = out_of_memory
        self.log_tail = tuple(log_tail)


class AcquireFailed(LeaseEnded):
    """The lease ended before it was READY."""


class AcquireTimeout(AcquireFailed):
    """The lease was not READY in the time that the caller gave it."""


class LeaseLost(LeaseEnded):
    """The lease, or this attachment to it, ended while it was in use. Its Spark session can't be used any more."""


class SparkMissing(SparkbrokerError):
    """pyspark isn't installed, or not with what the session needs."""


class SparkConflict(SparkbrokerError):
    """pyspark and pyspark-client of different versions are installed over each other."""


class SessionConflict(SparkbrokerError):
    """This process has a Spark session or a JVM that the one asked for can't live beside."""


class SessionEnded(SparkbrokerError):
    """A lease's Spark session has ended: by ``spark.stop()``, by its server, or with its lease. It is never replaced by itself.

    While the lease goes on, ``open_session`` opens another.
    """


class SessionFailed(SparkbrokerError):
    """The lease is granted, and the Spark session could not be opened."""


class PythonMismatch(UserWarning):
    """Python functions can't run on this server: it has another minor version of Python."""
