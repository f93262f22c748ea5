"""Lease Spark sessions from a sparkbroker, synchronously or with asyncio.

    with Broker().session(cores=2, memory="2g") as spark:
        spark.range(1000).count()

What this package promises:

- It needs grpcio and protobuf only; pyspark (or pyspark-client) is looked for when a session is opened. The import is
  lazy: a name is loaded when it is first used.
- Every wait has a bound. A dead broker or a dead Spark server makes an error, never a hang.
- An attachment is renewed in the background until it is released. Its deadline counts from when the renewal was *sent*,
  on a clock that counts the machine's sleep. A lease that the broker has ended is reported as ``LeaseLost``: at the next
  use, at the end of ``with``, and by interrupting its Spark session. It is never replaced by another one.
- A cancelled or interrupted acquire gives back what it got. ``with`` releases the lease however its body ends.
- Only what is safe to repeat is repeated, under one request id per logical request.
- A fork harms neither side: ``Broker`` lets go of gRPC for the milliseconds that it takes (half a second where something
  else of the process uses gRPC), does again what that interrupted, and goes on renewing. The child has its own gRPC.
- Tokens appear in no log, ``repr`` or error message.

What it does not promise:

- That a forked child has a sound gRPC where the fork could not stop it: an ``AsyncBroker``'s own event loop forks, or other
  gRPC calls of the program are under way. The child may then crash in gRPC: start such children with ``spawn``.
- That a lost lease's query has stopped before ``LeaseLost`` is seen: fencing is the broker's, and it is at the latest
  when the driver has ended.
- That a release reaches a broker which is down: the lease then ends by its time to live, and a warning is logged.
- That a lease survives a fork: it stays with the process that has attached to it. The child's copy of it refuses to
  work, and its copy of a ``Broker`` connects anew.

Its names, and these modules, are public; modules that begin with an underscore are not:

- ``child_environment``, ``local_settings``, ``nameless_user``, ``packaged_java``, ``installed_pyspark``: what a program needs
  that starts another one on a lease.
- ``ask_text``: text as arguments, for templates, cells and command lines.
- ``artifact_urls``, ``connect_channel``, ``submit_files``: how files reach a session.
- ``own_pod``: the pod of this program, for mode CLIENT.
- ``file_text``, ``visible``: text of people's files, and of others on a terminal.
"""

from typing import TYPE_CHECKING

from sparkbroker.client._version import __version__

if TYPE_CHECKING:
    from sparkbroker.client._address import Address, NoDefaultAddress, resolve_address
    from sparkbroker.client._ask import Ask
    from sparkbroker.client._async_broker import AsyncBroker
    from sparkbroker.client._async_lease import AsyncLease
    from sparkbroker.client._errors import (
        AcquireFailed,
        AcquireTimeout,
        BadAddress,
        BrokerFault,
        BrokerUnreachable,
        ClientClosed,
        EventsCompacted,
        InvalidRequest,
        LeaseEnded,
        LeaseKeyInUse,
        LeaseLost,
        LeaseNotFound,
        LeaseNotReady,
        NeverFits,
        NotAllowed,
        NotAuthenticated,
        NotFound,
        ProfileNotFound,
        PythonMismatch,
        QueueNotFound,
        RequestIdReused,
        SessionConflict,
        SessionEnded,
        SessionFailed,
        SparkbrokerError,
        SparkConflict,
        SparkMissing,
        TooManyRequests,
        WrongProcess,
    )
    from sparkbroker.client._lease_info import (
        Attachment,
        ContainerSize,
        DriverExit,
        Executors,
        ExecutorSpec,
        HolderPod,
        LeaseInfo,
        LeaseSpec,
        Timings,
        Waiting,
    )
    from sparkbroker.client._retry import DEFAULT_PATIENCE
    from sparkbroker.client._sync_broker import Broker
    from sparkbroker.client._sync_lease import Lease
    from sparkbroker.client._values import ClientConnection, ConnectConnection, Connection, LocalConnection, Progress

_MODULE_OF = {
    "Address": "_address",
    "Ask": "_ask",
    "NoDefaultAddress": "_address",
    "resolve_address": "_address",
    "AsyncBroker": "_async_broker",
    "AsyncLease": "_async_lease",
    "Broker": "_sync_broker",
    "DEFAULT_PATIENCE": "_retry",
    "Lease": "_sync_lease",
    "Attachment": "_lease_info",
    "ContainerSize": "_lease_info",
    "DriverExit": "_lease_info",
    "ExecutorSpec": "_lease_info",
    "Executors": "_lease_info",
    "HolderPod": "_lease_info",
    "LeaseInfo": "_lease_info",
    "LeaseSpec": "_lease_info",
    "Timings": "_lease_info",
    "Waiting": "_lease_info",
    "ClientConnection": "_values",
    "ConnectConnection": "_values",
    "Connection": "_values",
    "LocalConnection": "_values",
    "Progress": "_values",
}

__all__ = [
    "DEFAULT_PATIENCE",
    "AcquireFailed",
    "AcquireTimeout",
    "Address",
    "Ask",
    "AsyncBroker",
    "AsyncLease",
    "Attachment",
    "BadAddress",
    "Broker",
    "BrokerFault",
    "BrokerUnreachable",
    "ClientClosed",
    "ClientConnection",
    "ConnectConnection",
    "Connection",
    "ContainerSize",
    "DriverExit",
    "EventsCompacted",
    "ExecutorSpec",
    "Executors",
    "HolderPod",
    "InvalidRequest",
    "Lease",
    "LeaseEnded",
    "LeaseInfo",
    "LeaseKeyInUse",
    "LeaseLost",
    "LeaseNotFound",
    "LeaseNotReady",
    "LeaseSpec",
    "LocalConnection",
    "NeverFits",
    "NoDefaultAddress",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "ProfileNotFound",
    "Progress",
    "PythonMismatch",
    "QueueNotFound",
    "RequestIdReused",
    "SessionConflict",
    "SessionEnded",
    "SessionFailed",
    "SparkConflict",
    "SparkMissing",
    "SparkbrokerError",
    "Timings",
    "TooManyRequests",
    "Waiting",
    "WrongProcess",
    "__version__",
    "resolve_address",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  the price of a lazy import is paid by who uses it

    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF.get(name, '_errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
