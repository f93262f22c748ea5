"""Whoever may make pods may copy labels: what can't be the broker's own stops nothing, and is nobody's driver. On a small API
server."""

import pytest
from structlog.testing import capture_logs

from sparkbroker.broker.adapters.kubernetes_provisioner._names import object_name
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Metadata
from sparkbroker.broker.adapters.kubernetes_provisioner._strays import TOLD, Strays
from sparkbroker.broker.domain.capacity.resources import MEMORY
from sparkbroker.broker.ports.provisioner import Handle, Phase
from tests.kubernetes.small_world import ID, PREFIX, small_world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def world(tmp_path, monkeypatch, need):
    async with small_world(tmp_path, monkeypatch, need) as made:
        yield made


NO_IDS = ["X", "d" * 41, "-d", "d.1", ""]


@pytest.mark.promise(6)
async def test_a_stray_pod_or_account_stops_no_look_at_what_is_its_own(world):
    await world.ready()
    with capture_logs() as told:
        for number, text in enumerate(NO_IDS):
            await world.stray(f"pod-{number}", driver=text, role="driver")
            await world.stray(f"account-{number}", "serviceaccounts", driver=text)
            await world.stray(f"binding-{number}", "rolebindings", driver=text)
        for _ in range(3):
            assert await world.found() == [ID]
    strays = [entry["name"] for entry in told if entry["event"] == "kubernetes.stray"]
    assert sorted(strays) == sorted(f"{kind}-{n}" for kind in ("pod", "account", "binding") for n in range(len(NO_IDS)))
    await world.restart()
    assert await world.found() == [ID]
    assert (await world.until(Phase.READY, {})).phase is Phase.READY


def test_strays_are_told_within_a_bound():
    strays = Strays()
    with capture_logs() as told:
        for number in range(2 * TOLD):
            strays.tell("pod", Metadata(name=f"p{number}", uid=str(number // 2)), "it isn't")
            strays.tell("pod", Metadata(name=f"q{number}", uid=f"q{number}"), "it isn't")
    assert len(told) == TOLD + 1


@pytest.mark.promise(11)
async def test_a_copy_of_a_drivers_pod_is_nobodys_driver(world):
    """Its token goes to no other pod, also where that one is listed first, and after a restart."""
    before = await world.ready()
    with capture_logs() as told:
        await world.copy("a-copy")
        assert await world.found() == [ID]
        assert await world.observe(before.handle) == before
    assert [entry["name"] for entry in told if entry["event"] == "kubernetes.stray"] == ["a-copy"]
    handles: list[Handle] = [{}, before.handle]
    for handle in handles:
        await world.restart()
        await world.provisioner.inventory()
        seen = await world.until(Phase.READY, handle)
        assert (seen.handle, seen.resources) == (before.handle, before.resources)


async def test_a_copy_that_says_it_is_a_holders_is_nobodys_driver(world):
    before = await world.ready()
    await world.copy("a-copy", holder="true")
    await world.restart()
    await world.provisioner.inventory()
    seen = await world.until(Phase.READY, before.handle)
    assert (seen.handle, seen.resources) == (before.handle, before.resources)


async def test_what_says_it_is_a_holders_takes_no_drivers_place(world):
    """Somebody has guessed its id."""
    await world.stray("a-guess", driver=ID, role="driver", holder="true")
    await world.provisioner.inventory()
    assert (await world.ready()).handle["pod"] == object_name(ID)


async def test_one_of_the_same_name_takes_no_place(world):
    """The driver's own was deleted; the broker's record says which that was."""
    before = await world.ready()
    (own,) = await world.pods()
    await world.api._remove(("small", "pods", object_name(ID)))
    await world.api.add("small", "pods", own)
    await world.restart()
    seen = await world.observe(before.handle)
    assert (seen.phase, seen.handle) == (Phase.ABSENT, {})
    kept = world.provisioner.logs(ID, before.handle, offset=0, tail_lines=0, follow=False)
    assert [chunk async for chunk in kept]
    # What bears the labels isn't kept, and isn't forgotten: the next look at everything finds it.
    (found,) = await world.provisioner.inventory()
    assert found.phase is not Phase.ABSENT
    assert found.resources[MEMORY] > 0


@pytest.mark.promise(6)
async def test_a_holders_pod_is_the_one_that_asked(world):
    before = await world.ready_in_its_holders_pod()
    await world.copy("a-copy")
    await world.restart()
    await world.provisioner.inventory()
    seen = await world.until(Phase.READY, before.handle)
    assert (seen.handle, seen.resources) == (before.handle, before.resources)
    assert seen.handle["executors"] == 3


async def test_what_a_holder_writes_onto_its_pod_stops_nothing(world):
    before = await world.ready_in_its_holders_pod()
    (own,) = await world.pods()
    for text in ("9" * 5000, "99999999999"):
        annotations = {**own["metadata"]["annotations"], PREFIX + "executors": text, PREFIX + "pool": text * 10}
        changed = {**own, "metadata": {**own["metadata"], "annotations": annotations}}
        await world.api._change(("small", "pods", "idle"), changed)
        await world.restart()
        (found,) = await world.provisioner.inventory()
        assert (found.driver_id, len(found.pool) < 64) == (ID, True)
        seen = await world.until(Phase.READY, before.handle)
        assert seen.executors is not None
        assert seen.executors.wanted == 3
