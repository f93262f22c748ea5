"""The store of pods, the bucket of calls, and the verdict over pods."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkbroker.broker.adapters.kubernetes_provisioner._driver import KnownDriver
from sparkbroker.broker.adapters.kubernetes_provisioner._logs import Redactor, Tail, last_lines, read_saved, write_saved
from sparkbroker.broker.adapters.kubernetes_provisioner._names import HOLDER
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import BOOKMARK, POD, Pod, Spec
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import Hindrance
from sparkbroker.broker.adapters.kubernetes_provisioner._store import PodStore
from sparkbroker.broker.adapters.kubernetes_provisioner._throttle import Bucket
from sparkbroker.broker.adapters.kubernetes_provisioner._verdict import Evidence, observation
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER
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
    cpu="1",
    memory="1Gi",
    **labels,
) -> Pod:
    named = {key: f"sparkbroker.io/{key}" for key in labels}
    metadata = {
        "name": f"sparkbroker-{driver}" if role == "driver" else f"pod-{uid}", "namespace": "spark", "uid": uid, "resourceVersion": str(version),
        "labels": {"sparkbroker.io/driver": driver, "sparkbroker.io/role": role, **{named[key]: labels[key] for key in labels}},
        "annotations": {"sparkbroker.io/profile-fingerprint": "f", "sparkbroker.io/pool": "cluster", "sparkbroker.io/executors": executors},
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
    }  # fmt: skip
    name = DRIVER_CONTAINER if role == "driver" else EXECUTOR_CONTAINER
    container = {"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}}}
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


def test_a_pod_that_is_another_drivers_by_now_is_the_formers_no_more():
    store = PodStore()
    store.put(pod("a", 1, holder="true"))
    store.replace([pod("a", 5, driver="d2", holder="true")], "5")
    assert store.of(ID) == ()
    assert [p.metadata.uid for p in store.of(DriverId("d2"))] == ["a"]


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
    assert ready.handle == {"namespace": "spark", "pod": "sparkbroker-d1", "uid": "a", "node": "n", "ip": "10.0.0.1", "executors": 0}  # fmt: skip


def test_times_follow_each_other_whatever_the_nodes_clock_says():
    status = RUNNING | {"conditions": conditions(scheduled=30, sandbox=20)}
    seen = look(pod("a", status=status), port_open=WallTime(1.0), ready=WallTime(2.0))
    assert seen.pod_scheduled is not None
    assert seen.process_started is not None
    assert seen.port_open is not None
    assert seen.ready is not None
    assert seen.pod_scheduled <= seen.process_started <= seen.port_open <= seen.ready


def conditions(**since) -> list[dict[str, Any]]:
    """Of a pod: from which second of a minute on each holds, None: it doesn't."""
    told = {"scheduled": "PodScheduled", "sandbox": "PodReadyToStartContainers"}
    return [
        {"type": told[name], "status": "True", "lastTransitionTime": f"2026-01-01T00:00:{second:02}Z"}
        if second is not None
        else {"type": told[name], "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for name, second in since.items()
    ]


def moments(seen) -> list[float | None]:
    """Seconds of that minute."""
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    told = (seen.pod_scheduled, seen.sandbox_ready, seen.process_started)
    return [None if moment is None else moment - begin for moment in told]


def test_the_way_of_a_pod_to_its_process():
    waiting = state("waiting", reason="ContainerCreating")

    def seen(status, **since):
        return look(pod("a", status=status | {"conditions": conditions(**since)}))

    assert moments(seen(waiting, scheduled=None)) == [None, None, None]
    prepared = seen(waiting, scheduled=1, sandbox=None)
    assert moments(prepared) == [1.0, None, None]
    assert prepared.message == "its node n is preparing it"
    pulling = seen(waiting, scheduled=1, sandbox=2)
    assert moments(pulling) == [1.0, 2.0, None]
    assert pulling.message == "its node n pulls its images and makes its containers"
    running = state("running", startedAt="2026-01-01T00:00:09Z")
    assert moments(seen(running, scheduled=1, sandbox=2)) == [1.0, 2.0, 9.0]


def test_a_pod_that_has_no_node_yet_is_being_scheduled():
    nowhere = msgspec.structs.replace(pod("a", status={"phase": "Pending"}), spec=Spec())
    assert look(nowhere).message == "its pod is being scheduled"


def test_an_init_container_is_told_by_its_name():
    waiting = state("waiting", reason="PodInitializing")
    helper = {"name": "fetch", "state": {"running": {"startedAt": "2026-01-01T00:00:03Z"}}}
    status = waiting | {"conditions": conditions(scheduled=1, sandbox=2), "initContainerStatuses": [helper]}
    assert look(pod("a", status=status)).message == "its init container fetch runs"


def test_a_sandbox_that_is_told_with_its_containers_says_nothing_of_the_pull():
    """Kubelets before 1.36 do so."""
    running = state("running", startedAt="2026-01-01T00:00:09Z")
    for told in (9, 10):
        status = running | {"conditions": conditions(scheduled=1, sandbox=told)}
        assert moments(look(pod("a", status=status))) == [1.0, None, 9.0]


def test_a_holders_pod_came_before_its_lease():
    own = pod("a", status=RUNNING | {"conditions": conditions(scheduled=1, sandbox=2)})
    holder = msgspec.structs.replace(own.metadata, labels={**own.metadata.labels, HOLDER: "yes"})
    assert moments(look(msgspec.structs.replace(own, metadata=holder)))[:2] == [None, None]


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


def test_a_driver_that_gave_up_its_executors_says_what_they_failed_of():
    status = {"terminated": {"exitCode": 11, "reason": "Error"}}
    gave_up = pod("a", status={"phase": "Failed", "containerStatuses": [{"name": DRIVER_CONTAINER, "state": status}]})
    seen = look(gave_up, refused="the quota is full", executor_failure="executor e1: evicted")
    assert seen.phase is Phase.STOPPING
    assert seen.message == (
        "more of its executors failed than spark.executor.maxNumFailures allows; the quota is full; executor e1: evicted"
    )


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


@pytest.mark.parametrize("text", ["9" * 5000, "99999999999", "100000", "-1", "1.5", "٣", ""])
def test_a_number_that_nobody_of_ours_wrote_says_nothing(text):
    """An annotation of a holder's pod is its maker's to change."""
    own = pod("a", status=RUNNING, executors=text)
    seen = look(own, pod("e", role="executor", status=RUNNING), ready=WallTime(2e9))
    assert own.wanted is None
    assert seen.executors == Executors(wanted=1, running=1, pending=0)


def test_what_was_asked_for_counts_and_not_what_its_pod_says():
    own = pod("a", status=RUNNING, executors="7")
    seen = look(own, ready=WallTime(2e9), wanted=2)
    assert seen.executors == Executors(wanted=2, running=0, pending=0)
    assert seen.handle["executors"] == 2
    assert look(own, ready=WallTime(2e9)).handle["executors"] == 7


def test_what_pods_that_wait_ask_for_is_bounded():
    """The sum has to fit into 64 bits, however many of them code in a driver makes."""
    greedy = [pod(f"e{n}", role="executor", cpu="9" * 19, memory="7Ei", status={"phase": "Pending"}) for n in range(9)]
    assert look(pod("a", status=RUNNING), *greedy).resources == Resources({"cpu": 100_000_000, "memory": 1 << 50})


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
