"""The client's errors, as Airflow has them: what no retry mends fails the task at once, the rest may be tried again."""

import re
from typing import Any, Final

from sparkbroker.airflow_provider._compat import AirflowException, AirflowFailException, AirflowNotFoundException
from sparkbroker.airflow_provider.injection import InvalidFunction
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client import (  # none of these brings gRPC
    BadAddress,
    BrokerFault,
    BrokerUnreachable,
    InvalidRequest,
    LeaseEnded,
    NeverFits,
    NotAllowed,
    NotAuthenticated,
    ProfileNotFound,
    QueueNotFound,
    SparkConflict,
    SparkMissing,
    __version__,
)

_PERMANENT: Final = (
    AirflowFailException,
    BadAddress,
    InvalidArgument,
    InvalidFunction,
    InvalidRequest,
    NeverFits,
    NotAllowed,
    NotAuthenticated,
    ProfileNotFound,
    QueueNotFound,
    SparkConflict,
    SparkMissing,
)
_OF_THE_CONNECTION: Final = (
    AirflowNotFoundException,
    BadAddress,
    BrokerUnreachable,
    NotAuthenticated,
    BrokerFault,
)
_ARGUMENT_OF: Final = {
    "spec.executors.size.": "executor_",
    "spec.executors": "executors",
    "spec.driver.": "",
    "spec.driver": "cores",
    "spec.queue": "lease_queue",
    "spec.unset_conf": "conf",
    "spec.": "",
}
"""How a field of the broker's is called here, by how its name begins: the first that fits."""
_HOLDER: Final = "spec.holder_pod"
_FIELD: Final = re.compile(
    r"(?<![\w.])(?:driver\.(?P<driver>cores|memory_overhead|memory)"
    r"|executors\.(?:size\.(?P<size>cores|memory_overhead|memory)|(?:min|max)_count))(?![\w.])"
)
"""The same in the middle of a sentence; never a key of Spark's, such as spark.driver.memory."""


class TaskKilled(BaseException):
    """Airflow wants this process to end. No Exception: the task's own code isn't to catch it."""


class LeaseFailed(AirflowException):
    """A lease or its session failed; another try may succeed. ``reason`` is the broker's, such as DRIVER_LOST."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class LeaseRefused(AirflowFailException):
    """What was asked can't be had, and no other try mends that."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def is_permanent(error: BaseException) -> bool:
    """Whether another try would meet the same error."""
    if isinstance(error, LeaseEnded):
        return error.reason == "MISCONFIGURED"
    return isinstance(error, _PERMANENT)


def diagnosis(error: BaseException) -> str:
    """What is wrong, in the words of a task's arguments, and what to do where the connection is at fault."""
    text = _by_argument(str(error)) or type(error).__name__
    match error:
        case BadAddress():
            return f"Wrong settings: {text}"
        case BrokerUnreachable():
            return f"Unreachable: {text}. Check host, port, TLS, and that the broker runs"
        case NotAuthenticated():
            return f"Unauthenticated: {text}. Check the token"
        case NotAllowed():
            return f"Not allowed: {text}"
        case BrokerFault() if "UNIMPLEMENTED" in text:
            return f"Version: this is no broker, or one of another version than this client, {__version__}: {text}"
        case _:
            return text


def payload(error: BaseException, *, conn_id: str, lease: str = "") -> dict[str, Any]:
    """An error as a trigger's event, which ``from_payload`` reads in the worker."""
    text = diagnosis(error)
    of_connection = isinstance(error, _OF_THE_CONNECTION)
    if of_connection and f"connection {conn_id!r}" not in text:
        text = f"connection {conn_id!r}: {text}"
    return {
        "error": text,
        "reason": getattr(error, "reason", ""),
        "permanent": is_permanent(error),
        "lease": lease,
    }


def from_payload(event: dict[str, Any]) -> AirflowException:
    """What a trigger's event of an error stands for."""
    kind = LeaseRefused if event["permanent"] else LeaseFailed
    return kind(event["error"], event["reason"])


def as_airflow(error: BaseException, conn_id: str) -> AirflowException:
    """To be raised ``from`` the error itself."""
    return from_payload(payload(error, conn_id=conn_id))


def _by_argument(message: str) -> str:
    """A message of the broker's fields, which may begin with one, in the names of the task's arguments."""
    message = _FIELD.sub(_argument, message)
    field, colon, rest = message.partition(":")
    if field == _HOLDER:
        return "mode: of this profile it is CLIENT, for which the worker's pod is made; give mode='CLIENT' in the DAG"
    if field.startswith(_HOLDER):
        return f"mode: for 'CLIENT' the worker's pod would have to be another one:{rest}"
    for begins, argument in _ARGUMENT_OF.items():
        if field.startswith(begins):
            counted = begins == "spec.executors"  # whose min_count and max_count are one argument here
            return f"{argument}{'' if counted else field.removeprefix(begins)}{colon}{rest}"
    return message


def _argument(field: re.Match[str]) -> str:
    of_driver, of_executors = field["driver"], field["size"]
    return of_driver or (f"executor_{of_executors}" if of_executors else "executors")
