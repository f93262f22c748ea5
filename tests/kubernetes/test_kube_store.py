"""The store of pods, the bucket of calls, and the verdict over pods."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._logs import Redactor, Tail, last_lines, read_saved, write_saved
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import BOOKMARK, POD, Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import Hindrance
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from sparkbroker.broker.adapters.kubernetes_provisioner._throttle import Bucket
from sparkbroker.broker.adapters.kubernetes_provisioner._verdict import Evidence, observation
from sparkbroker.broker.domain.observation import Executors
from sparkbroker.broker.domain.pod_settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER
from sparkbroker.broker.domain.resources import Resources
from sparkbroker.broker.domain.units import DriverId, WallTime
from sparkbroker.broker.ports.provisioner import Phase

ID = DriverId("d1")


def pod(
    uid: str,
    version: int = 1,
    *,
    driver: str = "d1",
    role: str = "driver",
    status: dict[str, Any] | None = None,
    leaving=False,
    executors="",
) -> Pod:
    metadata = {
        "name": f"pod-{uid}", "namespace": "spark", "uid": uid, "resourceVersion": str(version),
        "labels": {"sparkbroker.io/driver": driver, "sparkbroker.io/role": role},
        "annotations": {"sparkbroker.io/profile-fingerprint": "f", "sparkbroker.io/pool": "cluster", "sparkbroker.io/executors": executors},
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
    }  # fmt: skip
    name = DRIVER_CONTAINER if role == "driver" else EXECUTOR_CONTAINER
    container = {"name": name, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    whole = {"metadata": metadata, "spec": {"nodeName": "n", "containers": [container]}, "status": status or {}}
    return POD.decode(msgspec.json.encode(whole))


def state(name: str, **inside) -> dict[str, Any]:
    phase = {"running": "Running", "terminated": "Failed", "waiting": "Pending"}[name]
    statuses = [{"name": container, "state": {name: inside}} for container in (DRIVER_CONTAINER, EXECUTOR_CONTAINER)]
    return {"phase": phase, "podIP": "10.0.0.1", "containerStatuses": statuses}


RUNNING = state("running", startedAt="2026-01-01T00:00:00Z")
DIED = state("terminated", exitCode=137, reason="OOMKilled")

events = st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abc")), max_size=20)


@settings(deadline=None)
@given(events, st.data())
def test_events_in_any_repetition_end_as_the_list_does(sequence, data):
    """Versions grow with the sequence; each event may come again later, and changes nothing then."""
    store, alive = PodStore(), dict[str, Pod]()
    told: list[tuple[str, str, Pod]] = []
    for version, (what, uid) in enumerate(sequence, 1):
        if (what == "remove") != (uid in alive) and uid in alive:
            continue
        uid_now = f"{uid}{len([1 for w, u, _ in told if u == uid and w == 'remove'])}"
        if what == "remove" and uid not in alive:
            continue
        told.append((what, uid, pod(uid_now, version)))
        (store.put if what == "put" else store.remove)(told[-1][2])
        alive[uid] = told[-1][2]
        if what == "remove":
            del alive[uid]
        if told and data.draw(st.booleans()):
            again = data.draw(st.sampled_from(told))
            before = store.of(ID)
            (store.put if again[0] == "put" else store.remove)(again[2])
            assert store.of(ID) == before
    assert {p.metadata.uid for p in store.of(ID)} == {p.metadata.uid for p in alive.values()}


def test_a_list_removes_what_it_doesnt_hold_but_nothing_newer_than_itself():
    store = PodStore()
    store.put(pod("old", 5))
    store.put(pod("new", 12))
    assert store.replace([], "10") == {ID}
    assert [p.metadata.uid for p in store.of(ID)] == ["new"]
    # What a list found gone doesn't come back by a late event.
    assert not store.put(pod("old", 6))


def test_a_list_of_one_driver_leaves_the_others_alone():
    store = PodStore()
    store.put(pod("a", 1))
    store.put(pod("b", 1, driver="d2"))
    store.replace([], "10", of=ID)
    assert store.drivers() == ("d2",)


def test_the_last_of_a_driver_and_its_executors_failures_are_remembered():
    store = PodStore()
    store.put(pod("a", 1, status=DIED))
    store.put(pod("e", 2, role="executor", status=DIED))
    store.remove(pod("a", 3, status=DIED))
    last = store.last(ID)
    assert last is not None
    assert last.metadata.uid == "a"
    assert "lack of memory" in store.last_failure(ID)
    store.forget(ID)
    assert store.last(ID) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_no_more_calls_than_the_bucket_holds(pauses, rate, burst):
    bucket, now, calls = Bucket(rate, burst), 100.0, []
    for pause in pauses:
        now += pause / rate
        calls.append(now + bucket.take(now))
    assert calls == sorted(calls)
    for first in range(len(calls)):
        for last in range(first, len(calls)):
            assert last - first + 1 <= burst + (calls[last] - calls[first]) * rate + 1e-6


def look(*pods: Pod, **evidence):
    return observation(ID, Evidence(pods=pods, **evidence))


def test_phases_of_a_driver():
    assert look(pod("a", status=state("waiting", reason="ContainerCreating"))).phase is Phase.STARTING
    assert look(pod("a", status=RUNNING)).phase is Phase.STARTING
    assert look(pod("a", status=RUNNING), port_open=WallTime(2e9)).phase is Phase.PORT_OPEN
    ready = look(pod("a", status=RUNNING), port_open=WallTime(2e9), ready=WallTime(2e9))
    assert ready.phase is Phase.READY
    assert ready.resources == Resources({"cpu": 1000, "memory": 1 << 30})
    assert (ready.profile_fingerprint, ready.pool) == ("f", "cluster")
    assert ready.handle == {"namespace": "spark", "pod": "pod-a", "uid": "a", "node": "n", "ip": "10.0.0.1"}


def test_times_follow_each_other_whatever_the_nodes_clock_says():
    seen = look(pod("a", status=RUNNING), port_open=WallTime(1.0), ready=WallTime(2.0))
    assert seen.process_started is not None
    assert seen.port_open is not None
    assert seen.ready is not None
    assert seen.process_started <= seen.port_open <= seen.ready


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "pods",
    [
        [pod("a", status=RUNNING, leaving=True)],
        [pod("e", role="executor", status=RUNNING)],
        [pod("a", status=DIED)],
        [pod("a", status=DIED), pod("e", role="executor", status=RUNNING, leaving=True)],
    ],
)
def test_while_anything_of_it_exists_it_is_not_gone(pods):
    for asked in (False, True):
        seen = look(*pods, asked=asked, last=pods[0])
        assert seen.phase is Phase.STOPPING
        assert seen.exit is not None


def test_what_a_dead_pod_takes_is_nothing():
    assert look(pod("a", status=DIED)).resources == Resources()
    assert look(pod("a", status=RUNNING, leaving=True)).resources["cpu"] == 1000


def test_nothing_left():
    gone = pod("a", status=RUNNING)
    assert look().phase is Phase.ABSENT
    assert look(last=gone, asked=True).phase is Phase.ABSENT
    seen = look(last=gone)
    assert (seen.phase, seen.message) == (Phase.ABSENT, "its pod was deleted by somebody else")
    seen = look(last=pod("a", status=DIED))
    assert seen.phase is Phase.EXITED
    assert seen.exit is not None
    assert seen.exit.out_of_memory


def test_executors_are_told_while_it_is_ready():
    ready = {"port_open": WallTime(2e9), "ready": WallTime(2e9)}
    own = pod("a", status=RUNNING, executors="2")
    one = pod("e1", role="executor", status=RUNNING)
    reason = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    stuck = pod("e2", role="executor", status={"phase": "Pending", "conditions": [reason]})
    assert look(own, one, stuck, **ready).message == (
        "1 of 2 executors run, 1 is pending (1 of them unschedulable: 0/3 nodes are available: 3 Insufficient cpu.)"
    )
    assert look(own, one, pod("e3", role="executor", status=RUNNING), **ready).message == ""
    assert look(own, **ready).message == "0 of 2 executors run"
    shown = look(own, one, stuck, **ready).executors
    assert shown == Executors(
        wanted=2, running=1, pending=1,
        message="1 of them unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
    )  # fmt: skip
    more = look(own, one, pod("e3", role="executor", status=RUNNING), stuck, **ready, executor_failure="executor e4: x")
    assert more.executors == Executors(
        wanted=3, running=2, pending=1,
        message="1 of them unschedulable: 0/3 nodes are available: 3 Insufficient cpu.; last failure: executor e4: x",
    )  # fmt: skip
    assert look(pod("a", status=RUNNING, executors="0"), **ready).executors is None
    assert look(own, one, port_open=WallTime(2e9)).executors is None


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8)), st.sampled_from(["secret", "aab", "xx"]))
def test_a_secret_is_starred_out_wherever_the_stream_is_cut(pieces, secret):
    redactor = Redactor(secret)
    pieces = [*pieces, secret[:1].encode(), secret[1:].encode(), *pieces]
    told = b"".join([*(redactor.feed(piece) for piece in pieces), redactor.flush()])
    whole = b"".join(pieces)
    assert len(told) == len(whole)
    assert secret.encode() not in told
    assert told == whole.replace(secret.encode(), b"*" * len(secret))


async def test_the_end_of_a_log_is_saved_at_its_own_offset(tmp_path):
    tail = Tail(10)
    for piece in (b"one\n", b"two\n", b"three\n", b"four\n"):
        tail.feed(piece)
    assert tail.total == 19
    path = tmp_path / "d1" / "log"
    write_saved(path, tail)
    assert [chunk async for chunk in read_saved(path, 0, 0)] == [(b"hree\nfour\n", 19)]
    assert [chunk async for chunk in read_saved(path, 14, 0)] == [(b"four\n", 19)]
    assert [chunk async for chunk in read_saved(path, 0, 1)] == [(b"four\n", 19)]
    assert last_lines(path)[-1] == "four"
    shorter = Tail(10)
    shorter.feed(b"x")
    write_saved(path, shorter)
    assert [chunk async for chunk in read_saved(path, 0, 0)] == [(b"hree\nfour\n", 19)]
    assert [chunk async for chunk in read_saved(tmp_path / "none", 0, 0)] == []


def test_what_looks_hopeless_for_a_while_is_given_up():
    """Events, which know nothing of an image, take nothing back."""
    driver = KnownDriver(ID, "token")
    stuck = pod("a", status=state("waiting", reason="ErrImageNeverPull"))
    assert driver.hopeless(stuck, 0.0) == ""
    driver.told = None
    assert driver.hopeless(stuck, 10.0) == ""
    assert "is not on the node" in driver.hopeless(stuck, 15.0)
    assert driver.hopeless(pod("a", 2, status=RUNNING), 16.0) == ""
    assert driver.hopeless(stuck, 17.0) == ""
    driver.told = Hindrance(message="a volume", hopeless=True)
    creating = pod("a", 3, status=state("waiting", reason="ContainerCreating"))
    assert driver.hopeless(creating, 31.0) == ""
    assert driver.hopeless(creating, 32.0) == "a volume"


def test_a_bookmark_is_no_pod():
    """As API servers write it: lists are null."""
    line = b'{"kind":"Pod","metadata":{"resourceVersion":"5","creationTimestamp":null},"spec":{"containers":null}}'
    assert BOOKMARK.decode(line).metadata.resource_version == "5"
