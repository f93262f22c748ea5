"""What the broker counts while it works. Calls are cheap (well under a microsecond), never fail and never wait.

Made on the event loop's thread only, but for ``committed``, whose one caller may be another thread.
"""

from typing import Literal, Protocol

Limit = Literal[
    "anonymous_calls",
    "answer_bytes_per_principal",
    "answer_seconds",
    "calls_per_principal",
    "cancelled_per_connection",
    "concurrent_rpcs",
    "connections",
    "connections_per_principal",
    "disk",
    "downloads_per_principal",
    "live_leases_per_principal",
    "live_spec_bytes_per_principal",
    "log_rate_per_principal",
    "logs_per_principal",
    "metrics_connections",
    "queued_leases",
    "refusals_per_connection",
    "request_seconds",
    "requests_per_principal",
    "spec_bytes",
    "streams_per_principal",
    "unauthenticated_connections",
    "unauthenticated_seconds",
]
"""The bounds on what one caller can do to others. Each has an alert (``chart/files/alerts.yaml``) and a row in
``docs/explanation/security.md``."""


class Metrics(Protocol):
    """What ``app`` and ``rpc`` report. Gauges (leases by state and queue) are read at the time of a scrape instead."""

    def rpc(self, method: str, code: str, seconds: float) -> None:
        """A call has ended: the method's name, the gRPC code's name, and how long it took."""
        ...

    def committed(self, operations: int, seconds: float) -> None:
        """One transaction is durable: how many operations it carried, and how long the commit took."""
        ...

    def phase(self, name: str, seconds: float) -> None:
        """A lease has left a phase of its start: ``queued``, ``process_start``, ``port_open``, ``connect``,
        or all of them: ``ready``. Of a pod, ``schedule``, ``sandbox`` and ``pull`` are parts of ``process_start``."""
        ...

    def ended(self, outcome: str, reason: str) -> None:
        """A lease has reached a terminal state: the state's name and the reason's."""
        ...

    def streams(self, method: str, change: int) -> None:
        """A stream (a watch, a keepalive) has begun (+1) or ended (-1)."""
        ...

    def limited(self, limit: Limit) -> None:
        """A bound on what one caller may do to others was hit: the limit's name."""
        ...


class NoMetrics:
    """Counts nothing."""

    def rpc(self, method: str, code: str, seconds: float) -> None:
        pass

    def committed(self, operations: int, seconds: float) -> None:
        pass

    def phase(self, name: str, seconds: float) -> None:
        pass

    def ended(self, outcome: str, reason: str) -> None:
        pass

    def streams(self, method: str, change: int) -> None:
        pass

    def limited(self, limit: Limit) -> None:
        pass
