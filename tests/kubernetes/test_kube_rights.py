"""The rights of a lease whose driver is its holder's own pod, once they were taken; on a small API server."""

import msgspec
import pytest
from aiohttp import web

from sparkbroker.broker.adapters.kubernetes_provisioner._names import HOLDER, OWNER
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.ports.provisioner import Phase
from tests.kubernetes.small_world import ID, small_world

pytestmark = [pytest.mark.timeout(60), pytest.mark.promise(6)]


@pytest.fixture
async def world(tmp_path, monkeypatch, need):
    async with small_world(tmp_path, monkeypatch, need) as made:
        yield made


def rights(world):
    return world.api.names("small", "serviceaccounts"), world.api.names("small", "rolebindings")


def marks(world):
    (own,) = [pod for pod in world.api.objects("small", "pods") if pod["metadata"]["name"] == "idle"]
    return {OWNER, HOLDER} & own["metadata"]["labels"].keys()


async def test_a_broker_that_is_back_gives_back_no_rights_that_were_taken(world):
    """The one before it was killed while it ended the lease."""
    before = await world.ready_in_its_holders_pod()
    assert all(rights(world))
    await world.provisioner._fleet.clients.revoke("small", ID)
    await world.restart()
    await world.provisioner.inventory()
    await world.observe(before.handle)
    assert rights(world) == ([], [])


async def test_a_lease_that_nobody_knows_is_ended_though_its_role_may_not_be_bound(world):
    """The store is lost, and with it under which profile, and which role, it was made."""
    before = await world.ready_in_its_holders_pod()

    def refuse(what, done):
        if what.startswith("POST") and not done:
            raise web.HTTPForbidden(text='{"message": "attempting to grant RBAC permissions not currently held"}')

    world.api.witness = refuse
    await world.restart()
    world.profile = Profile.unknown("kubernetes")
    (found,) = await world.provisioner.inventory()
    await world.observe(found.handle)
    await world.provisioner.delete(ID, found.handle, force=False)
    while (await world.observe(before.handle)).phase is not Phase.ABSENT:
        await world.provisioner.wait_for_change()
    assert rights(world) == ([], [])
    assert not marks(world)


async def test_marks_that_a_later_lease_has_put_stay(world):
    """The call that takes them off was late: somebody has changed the pod since it was looked at."""
    await world.ready_in_its_holders_pod()
    looked_at = world.provisioner._fleet.own_pod(world.provisioner._fleet.driver(ID))
    (own,) = await world.pods()
    await world.api._change(("small", "pods", "idle"), msgspec.convert(own, dict))
    cluster = world.provisioner._fleet.cluster
    listed = cluster.list_pods

    async def stale(*_arguments):
        return (looked_at,), "1"

    cluster.list_pods = stale
    assert not await world.provisioner._fleet.clients.let_go("small", ID)
    assert marks(world)
    cluster.list_pods = listed
    assert await world.provisioner._fleet.clients.let_go("small", ID)
    assert not marks(world)


async def test_who_may_not_look_everywhere_confirms_nobody_s_end(world, tmp_path):
    """A log that was kept is no word about its driver, which may run in the namespace that is refused."""
    kept = tmp_path / "pods" / ID / "log"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"0")

    def refuse(what, done):
        if what == "GET pods" and not done:
            raise web.HTTPForbidden(text='{"message": "User \\"broker\\" cannot list resource \\"pods\\""}')

    world.api.witness = refuse
    assert await world.provisioner.inventory() == []
    assert "may not list pods" in world.provisioner.unusable(world.profile)
    world.api.witness = lambda _what, _done: None
    assert [(seen.driver_id, seen.phase) for seen in await world.provisioner.inventory()] == [(ID, Phase.ABSENT)]
