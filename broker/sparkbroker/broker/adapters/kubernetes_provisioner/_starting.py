"""How drivers come up: made or adopted, or a holder's pod claimed, and brought along until they are ready."""

import asyncio
from http import HTTPStatus

from sparkbroker.broker.adapters.kubernetes_provisioner._driver import PROBE_PAUSE, KnownDriver, is_running
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._fleet import UP, Fleet
from sparkbroker.broker.adapters.kubernetes_provisioner._manifests import Manifests, render, with_owner
from sparkbroker.broker.adapters.kubernetes_provisioner._names import DRIVER, OWNER, wanted
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.provisioner import DriverRequest, Observation


class Starting:
    """Of the drivers of one fleet. Every step can be repeated. Errors: ProvisionerFailed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __repr__(self) -> str:
        return f"<Starting of {self._fleet!r}>"

    async def create(self, known: KnownDriver, request: DriverRequest) -> Observation:
        """Make its pod and its Secret, or adopt them."""
        manifests = render(request, owner=self._fleet.owner, token=known.token)
        known.namespace = manifests.namespace
        store = self._fleet.watch(manifests.namespace).store
        pod = store.driver_pod(known.id)
        if pod is None or pod.is_holder:
            pod = await self._create_or_adopt(manifests)
        self._check_ours(pod, request)
        self._record(known, pod, request)
        store.put(pod)
        if not pod.leaving and not pod.ended:
            # The pod waits for it: it is the Secret's owner, so that nothing is left of a create that was cut off here.
            secret = with_owner(manifests.secret, pod.metadata.uid)
            await self._fleet.cluster.create_secret(manifests.namespace, secret)
        seen = self._fleet.look(known.id)
        self.attend(known, seen)
        return seen

    async def _create_or_adopt(self, manifests: Manifests) -> Pod:
        cluster = self._fleet.cluster
        try:
            return await cluster.create_pod(manifests.namespace, manifests.pod)
        except ApiFailed as error:
            if error.code != HTTPStatus.CONFLICT:
                raise
        return await cluster.get_pod(manifests.namespace, manifests.pod["metadata"]["name"])

    def _record(self, known: KnownDriver, pod: Pod, request: DriverRequest) -> None:
        """What it was asked for counts from now on, and not what its pod says, which others may change."""
        self._fleet.record(known, pod.metadata.uid)
        known.wanted = wanted(request.spec)

    def _check_ours(self, pod: Pod, request: DriverRequest) -> None:
        labels = pod.metadata.labels
        if labels.get(OWNER) != self._fleet.owner or labels.get(DRIVER) != request.driver_id or pod.is_holder:
            raise ProvisionerFailed(
                f"pod {pod.metadata.name!r} in namespace {pod.metadata.namespace!r} is not this broker's",
                retryable=False,
            )
        if pod.fingerprint != request.profile_fingerprint:
            raise ProvisionerFailed(
                f"driver {request.driver_id} exists with the profile fingerprint {pod.fingerprint}, "
                f"not {request.profile_fingerprint}",
                retryable=False,
            )

    async def claim(self, known: KnownDriver, request: DriverRequest) -> Observation:
        """Mark its holder's pod, and give it the lease's rights."""
        pod = await self._fleet.clients.claim(request)
        known.client = True
        known.namespace = pod.metadata.namespace
        self._record(known, pod, request)
        self._fleet.watch(known.namespace).store.put(pod)
        await self.give_rights(known, pod, request.profile)
        return self._fleet.look(known.id)

    async def give_rights(self, known: KnownDriver, pod: Pod, profile: Profile) -> None:
        """The last step of a claim: it is ready after it."""
        await self._fleet.clients.give_rights(pod, known.id, profile.client_role)
        known.ready = self._fleet.clock.wall()
        self._fleet.note([known.id])

    def give_up_if_hopeless(self, known: KnownDriver, pod: Pod) -> None:
        """Raise ProvisionerFailed if it will never start. Said once: after that it is looked at to be ended."""
        if not known.given_up and (why := known.hopeless(pod, self._fleet.clock.monotonic())):
            known.given_up = True
            raise ProvisionerFailed(why, retryable=False, misconfigured=True)

    def attend(self, known: KnownDriver, seen: Observation) -> None:
        """See to it that a driver which is coming up gets there."""
        name = f"driver {known.id}"
        if seen.phase in UP and known.ready is None and not known.client and name not in self._fleet.tasks:
            self._fleet.tasks.start(name, self._bring_along(known))

    async def _bring_along(self, known: KnownDriver) -> None:
        """Until it is ready, ending, or gone."""
        clock = self._fleet.clock
        began: float | None = None
        while known.ready is None and not known.asked:
            known.changed.clear()
            pod = self._fleet.own_pod(known)
            if pod is None or pod.leaving or pod.ended:
                return
            now = clock.monotonic()
            if is_running(pod):
                began = now if began is None else began
                if await known.call(pod, clock, now - began):
                    self._fleet.note([known.id])
                else:
                    await asyncio.sleep(PROBE_PAUSE)
                continue
            if pod.spec.node_name and await known.ask_events(self._fleet.cluster, pod, now):
                self._fleet.note([known.id])
            await known.until_changed()
