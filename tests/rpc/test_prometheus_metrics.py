"""What a scrape shows, over HTTP."""

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sparkbroker.broker.adapters import metrics_server
from sparkbroker.broker.adapters.metrics_server import MAX_CONNECTIONS, MAX_SCRAPES
from sparkbroker.broker.adapters.prometheus_metrics import MetricsNotServed, PrometheusMetrics


@pytest.fixture
def metrics() -> Iterator[PrometheusMetrics]:
    metrics = PrometheusMetrics()
    yield metrics
    metrics.close()


async def scrape(port):
    def get():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    text = await asyncio.to_thread(get)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_was_reported_is_shown(metrics):
    port = metrics.serve("127.0.0.1", 0)
    metrics.rpc("GetLease", "OK", 0.0015)
    metrics.rpc("GetLease", "OK", 1000.0)
    metrics.rpc("GetLease", "NOT_FOUND", 0.1)
    metrics.committed(8, 0.002)
    metrics.phase("queued", 3.0)
    metrics.ended("EXPIRED", "HOLDER_LOST")
    metrics.ended("EXPIRED", "HOLDER_LOST")
    metrics.streams("WatchLease", 1)
    metrics.streams("WatchLease", 1)
    metrics.streams("WatchLease", -1)
    metrics.observe_leases(lambda: {("etl", "READY"): 3}, asyncio.get_running_loop())
    metrics.observe_retained(lambda: {"requests": 12})
    metrics.observe_calls(lambda: {("create", "pods"): 7})
    metrics.limited("spec_bytes")
    shown = await scrape(port)
    ok = (("code", "OK"), ("method", "GetLease"))
    assert shown["sparkbroker_rpc_duration_seconds_count", *ok] == 2
    assert shown["sparkbroker_rpc_duration_seconds_sum", *ok] == 1000.0015
    assert shown["sparkbroker_rpc_duration_seconds_bucket", ok[0], ("le", "0.001"), ok[1]] == 0
    assert shown["sparkbroker_rpc_duration_seconds_bucket", ok[0], ("le", "0.002"), ok[1]] == 1
    assert shown["sparkbroker_rpc_duration_seconds_bucket", ok[0], ("le", "60"), ok[1]] == 1
    assert shown["sparkbroker_rpc_duration_seconds_bucket", ok[0], ("le", "+Inf"), ok[1]] == 2
    assert shown["sparkbroker_commit_operations_bucket", ("le", "8")] == 1
    assert shown["sparkbroker_commit_operations_bucket", ("le", "4")] == 0
    assert shown["sparkbroker_commit_duration_seconds_count",] == 1
    assert shown["sparkbroker_lease_phase_duration_seconds_count", ("phase", "queued")] == 1
    assert shown["sparkbroker_leases_ended_total", ("outcome", "EXPIRED"), ("reason", "HOLDER_LOST")] == 2
    assert shown["sparkbroker_rpc_streams", ("method", "WatchLease")] == 1
    assert shown["sparkbroker_retained", ("what", "requests")] == 12
    assert shown["sparkbroker_limited_total", ("limit", "spec_bytes")] == 1
    assert shown["sparkbroker_leases", ("queue", "etl"), ("state", "READY")] == 3
    assert shown["sparkbroker_kubernetes_calls_total", ("resource", "pods"), ("verb", "create")] == 7
    assert shown["process_resident_memory_bytes",] > 0


async def test_the_census_is_taken_on_the_loop(metrics):
    loop = asyncio.get_running_loop()
    port = metrics.serve("127.0.0.1", 0)
    metrics.observe_leases(lambda: {("q", str(asyncio.get_running_loop() is loop)): 1}, loop)
    assert ("sparkbroker_leases", ("queue", "q"), ("state", "True")) in await scrape(port)


async def test_it_shows_what_it_has_before_there_are_leases(metrics):
    shown = await scrape(metrics.serve("127.0.0.1", 0))
    assert shown["sparkbroker_commit_duration_seconds_count",] == 0
    assert not [key for key in shown if key[0] == "sparkbroker_leases"]


async def test_a_port_that_is_taken_is_said(metrics):
    port = metrics.serve("127.0.0.1", 0)
    other = PrometheusMetrics()
    with pytest.raises(MetricsNotServed, match=f"127.0.0.1:{port}: Address already in use"):
        other.serve("127.0.0.1", port)
    other.close()
    metrics.close()
    metrics.close()


async def probe(port, path):
    def get():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def test_it_is_ready_while_the_broker_serves(metrics):
    port = metrics.serve("127.0.0.1", 0)
    assert await probe(port, "/readyz") == (503, "not serving\n")
    metrics.serving = True
    assert await probe(port, "/readyz") == (200, "ok\n")


async def test_it_lives_while_the_loop_answers(metrics, monkeypatch):
    monkeypatch.setattr("sparkbroker.broker.adapters.prometheus_metrics._CENSUS_SECONDS", 0.1)
    port = metrics.serve("127.0.0.1", 0)
    assert await probe(port, "/livez") == (200, "ok\n")
    metrics.observe_leases(dict, asyncio.get_running_loop())
    assert await probe(port, "/livez") == (200, "ok\n")
    stuck = asyncio.new_event_loop()  # Nobody runs it.
    metrics.observe_leases(dict, stuck)
    try:
        assert await probe(port, "/livez") == (503, "the event loop did not answer within 0.1 s\n")
    finally:
        stuck.close()


async def test_silent_connections_keep_no_probe_out(metrics):
    port = metrics.serve("127.0.0.1", 0)
    metrics.serving = True
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * MAX_CONNECTIONS)]
    try:
        assert await probe(port, "/readyz") == (200, "ok\n")
        assert metrics._http.connections <= MAX_CONNECTIONS + 1
        shown = await scrape(port)
        assert shown["sparkbroker_limited_total", ("limit", "metrics_connections")] >= 2 * MAX_CONNECTIONS
        assert threading.active_count() < 2 * MAX_CONNECTIONS
    finally:
        for each in crowd:
            each.close()


async def test_scrapes_take_turns(metrics, monkeypatch):
    monkeypatch.setattr(metrics_server, "SCRAPE_SECONDS", 0.05)
    port = metrics.serve("127.0.0.1", 0)
    under_way, go = asyncio.Semaphore(0), threading.Event()
    loop = asyncio.get_running_loop()

    def calls():
        loop.call_soon_threadsafe(under_way.release)
        go.wait(10)
        return {}

    metrics.observe_calls(calls)
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(probe(port, "/metrics")) for _ in range(MAX_SCRAPES)]
        for _ in slow:
            await under_way.acquire()
        assert await probe(port, "/metrics") == (503, "too many scrapes at once\n")
        assert (await probe(port, "/livez"))[0] == 200
        go.set()
    assert [each.result()[0] for each in slow] == [200] * MAX_SCRAPES
