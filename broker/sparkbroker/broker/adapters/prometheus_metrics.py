"""Metrics for Prometheus, and what health probes ask, served over HTTP by a thread of their own.

``/livez`` answers 200 while the event loop does, ``/readyz`` while the broker serves; every other path has the metrics.

prometheus_client's own instruments take a lock per bucket (about 3 us an observation, on the path of every call), so
these count into plain lists, and become metric families only at a scrape. Each histogram has one writer; a scrape reads
while it writes, and may see an observation in the buckets that isn't in the sum yet, never a torn number.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from sparkbroker.broker.adapters.metrics_server import MetricsServer, few_at_once
from sparkbroker.broker.domain.errors import BrokerError
from sparkbroker.broker.ports.metrics import Limit

Census = Callable[[], Mapping[tuple[str, str], int]]
"""How many leases there are by (queue, state). Called on the event loop, at each scrape."""

Retained = Callable[[], Mapping[str, int]]
"""How much is kept of what is bounded, by name. Called on the event loop, at each scrape."""

Calls = Callable[[], Mapping[tuple[str, str], int]]
"""How many calls have been made of Kubernetes by (verb, resource). Called by the thread of a scrape."""

_Key = TypeVar("_Key")

_CENSUS_SECONDS: Final = 5.0

_RPC_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_COMMIT_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
_OPERATIONS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_PHASE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


class MetricsNotServed(BrokerError):
    """The endpoint can't listen. Says where, and why not."""

    reason = "METRICS_NOT_SERVED"


class _Histogram:
    """Observations by bucket; ``bounds`` are inclusive upper ones, ascending; one more bucket is above them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus' form: (upper bound, how many are at most that)."""
        result, seen = [], 0
        for bound, count in zip((*(f"{b:g}" for b in self.bounds), "+Inf"), list(self.counts), strict=True):
            seen += count
            result.append((bound, float(seen)))
        return result


class PrometheusMetrics:
    """Implements ``ports.metrics`` and, as a prometheus_client collector, shows it.

    ``observe_leases`` names the census; until then there is no gauge of leases.
    """

    def __init__(self) -> None:
        self.serving = False
        """What ``/readyz`` tells."""
        self._rpcs: dict[tuple[str, str], _Histogram] = {}
        self._phases: dict[str, _Histogram] = {}
        self._commit_seconds = _Histogram(_COMMIT_SECONDS)
        self._commit_operations = _Histogram(_OPERATIONS)
        self._ended: dict[tuple[str, str], int] = {}
        self._streams: dict[str, int] = {}
        self._limited: dict[Limit, int] = {}
        self._calls: Calls = dict
        self._census: Census | None = None
        self._retained: Retained = dict
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: MetricsServer | None = None

    def rpc(self, method: str, code: str, seconds: float) -> None:
        histogram = self._rpcs.get((method, code))
        if histogram is None:
            histogram = self._rpcs[method, code] = _Histogram(_RPC_SECONDS)
        histogram.observe(seconds)

    def committed(self, operations: int, seconds: float) -> None:
        self._commit_operations.observe(operations)
        self._commit_seconds.observe(seconds)

    def phase(self, name: str, seconds: float) -> None:
        histogram = self._phases.get(name)
        if histogram is None:
            histogram = self._phases[name] = _Histogram(_PHASE_SECONDS)
        histogram.observe(seconds)

    def ended(self, outcome: str, reason: str) -> None:
        self._ended[outcome, reason] = self._ended.get((outcome, reason), 0) + 1

    def streams(self, method: str, change: int) -> None:
        self._streams[method] = self._streams.get(method, 0) + change

    def limited(self, limit: Limit) -> None:
        self._limited[limit] = self._limited.get(limit, 0) + 1

    def observe_leases(self, census: Census, loop: asyncio.AbstractEventLoop) -> None:
        """Show the census as a gauge. It runs on ``loop``, so it may read what only that loop's thread may."""
        self._census, self._loop = census, loop

    def observe_retained(self, retained: Retained) -> None:
        """Show how much is kept of what is bounded. It runs where the census does."""
        self._retained = retained

    def observe_calls(self, calls: Calls) -> None:
        """Show how many calls are made of Kubernetes."""
        self._calls = calls

    def serve(self, host: str, port: int) -> int:
        """Listen for scrapes of ``/metrics`` and return the port. Raise MetricsNotServed. Call ``close`` after it."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(self)
        app = self._with_probes(few_at_once(make_wsgi_app(registry)))
        try:
            self._http = MetricsServer(host, port, app, self.limited)
        except OSError as error:
            raise MetricsNotServed(
                f"metrics can't be served on {host}:{port}: {error.strerror or error}; choose another port or address"
            ) from error
        self._http.start()
        return self._http.server_port

    def _with_probes(self, metrics: WSGIApplication) -> WSGIApplication:
        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            problem = None
            match environ.get("PATH_INFO"):
                case "/livez":
                    problem = self._stuck()
                case "/readyz":
                    problem = "" if self.serving else "not serving\n"
            if problem is None:
                return metrics(environ, start_response)
            start_response("503 Service Unavailable" if problem else "200 OK", [("Content-Type", "text/plain")])
            return [(problem or "ok\n").encode()]

        return answer

    def _stuck(self) -> str:
        """Why the event loop is not well; empty: it is, or there is none yet."""
        if self._loop is None or self._loop.is_closed():
            return ""
        try:
            _on_loop(dict[str, int], self._loop)
        except TimeoutError as error:
            return f"{error}\n"
        return ""

    def close(self) -> None:
        """Stop listening. Idempotent; blocks for at most half a second."""
        if self._http is not None:
            server, self._http = self._http, None
            server.stop()

    def describe(self) -> list[Metric]:
        """Nothing is collected when it is registered: there may be no running loop yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families, at a scrape. Called by the HTTP server's thread."""
        yield from self._histograms()
        ended = CounterMetricFamily(
            "sparkbroker_leases_ended",
            "Leases that have reached a terminal state. Expirations have outcome EXPIRED; lost drivers have reason "
            "DRIVER_LOST or OUT_OF_MEMORY.",
            labels=("outcome", "reason"),
        )
        for labels, count in self._ended.copy().items():
            ended.add_metric(labels, count)
        yield ended
        streams = GaugeMetricFamily("sparkbroker_rpc_streams", "Open streams: watches, keepalives.", labels=("method",))
        for method, count in self._streams.copy().items():
            streams.add_metric((method,), count)
        yield streams
        limited = CounterMetricFamily(
            "sparkbroker_limited",
            "How often a bound on what one caller may do to others was hit: calls refused, connections closed.",
            labels=("limit",),
        )
        for limit, count in self._limited.copy().items():
            limited.add_metric((limit,), count)
        yield limited
        calls = CounterMetricFamily(
            "sparkbroker_kubernetes_calls",
            "Calls of the Kubernetes API, by what RBAC names: the opening of a watch is one.",
            labels=("verb", "resource"),
        )
        for labels, count in self._calls().items():
            calls.add_metric(labels, count)
        yield calls
        yield from self._leases()

    def _histograms(self) -> Iterator[Metric]:
        rpcs = HistogramMetricFamily(
            "sparkbroker_rpc_duration_seconds", "Calls by method and gRPC code.", labels=("method", "code")
        )
        for labels, histogram in self._rpcs.copy().items():
            rpcs.add_metric(labels, histogram.cumulative(), histogram.total)
        yield rpcs
        phases = HistogramMetricFamily(
            "sparkbroker_lease_phase_duration_seconds", "Phases of a lease's start.", labels=("phase",)
        )
        for name, histogram in self._phases.copy().items():
            phases.add_metric((name,), histogram.cumulative(), histogram.total)
        yield phases
        for name, help_text, histogram in (
            ("sparkbroker_commit_duration_seconds", "Durable transactions of the store.", self._commit_seconds),
            ("sparkbroker_commit_operations", "Operations per transaction.", self._commit_operations),
        ):
            family = HistogramMetricFamily(name, help_text)
            family.add_metric((), histogram.cumulative(), histogram.total)
            yield family

    def _leases(self) -> Iterator[Metric]:
        if self._census is None or self._loop is None or self._loop.is_closed():
            return
        leases = GaugeMetricFamily("sparkbroker_leases", "Leases by queue and state.", labels=("queue", "state"))
        for labels, count in _on_loop(self._census, self._loop).items():
            leases.add_metric(labels, count)
        yield leases
        kept = GaugeMetricFamily(
            "sparkbroker_retained", "How much is kept of what the configuration bounds.", labels=("what",)
        )
        for name, count in _on_loop(self._retained, self._loop).items():
            kept.add_metric((name,), count)
        yield kept


def _on_loop(census: Callable[[], Mapping[_Key, int]], loop: asyncio.AbstractEventLoop) -> Mapping[_Key, int]:
    """The census, taken by the loop's thread. A loop that doesn't answer in time fails the scrape, as it should."""
    answer: Future[Mapping[_Key, int]] = Future()

    def take() -> None:
        try:
            answer.set_result(census())
        except Exception as error:  # noqa: BLE001 - raised again by result(), in the thread that asked
            answer.set_exception(error)

    loop.call_soon_threadsafe(take)
    try:
        return answer.result(timeout=_CENSUS_SECONDS)
    except FutureTimeout as error:
        raise TimeoutError(f"the event loop did not answer within {_CENSUS_SECONDS:g} s") from error
