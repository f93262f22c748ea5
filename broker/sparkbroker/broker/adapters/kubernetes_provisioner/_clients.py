"""What is done in a cluster for leases in mode CLIENT: the holder's pod marked, an account with rights for each lease, and
both taken back. Every step can be repeated after a crash at any point: names come from the driver's id."""

from http import HTTPStatus

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner import _holder
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._names import (
    DRIVER,
    account_name,
    deletable,
    is_driver_id,
    of_driver,
    owned,
)
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._strays import Strays
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.units import DriverId
from sparkbroker.broker.ports.provisioner import ClientAccess, DriverRequest


class Clients:
    """Of one broker (``owner``). Errors: ProvisionerFailed."""

    def __init__(self, cluster: Cluster, owner: str, strays: Strays) -> None:
        self._cluster = cluster
        self._owner = owner
        self._strays = strays

    def __repr__(self) -> str:
        return f"<Clients of {self._cluster!r}>"

    async def claim(self, request: DriverRequest) -> Pod:
        """Verify the holder's pod and mark it as this driver; one that is marked already stays so."""
        asked = _holder.holder_of(request)
        try:
            pod = await self._cluster.get_pod(asked.namespace, asked.name)
        except ApiFailed as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            raise _holder.missing(asked) from error
        _holder.check(pod, request, self._owner)
        if pod.driver_id == request.driver_id:
            return pod
        try:
            return await self._cluster.patch_pod(pod, _holder.claim(pod, request, self._owner))
        except ApiFailed as error:
            if error.code == HTTPStatus.NOT_FOUND:
                raise _holder.missing(asked) from error
            if error.code != HTTPStatus.CONFLICT:
                raise
            # It changed since it was looked at: look again.
            raise ProvisionerFailed(f"pod {asked.name!r} is changing; it is looked at again", retryable=True) from error

    async def give_rights(self, pod: Pod, driver_id: DriverId, role: str) -> None:
        """Make the lease's account, and bind it; what exists stays."""
        await self._cluster.create_account(pod.metadata.namespace, _holder.account(pod, driver_id, self._owner))
        binding = _holder.binding(pod, driver_id, self._owner, role)
        await self._cluster.create_binding(pod.metadata.namespace, binding)

    async def revoke(self, namespace: str, driver_id: DriverId) -> None:
        """Take the rights and the account; they may be gone already. The rights end at once, tokens within seconds."""
        name = account_name(driver_id)
        await self._cluster.delete_binding(namespace, name)
        await self._cluster.delete_account(namespace, name)

    async def drivers(self, namespace: str) -> set[DriverId]:
        """Those of which there is an account, or a binding."""
        selector, found = owned(self._owner), set[DriverId]()
        for kind, listed in (("account", self._cluster.list_accounts), ("binding", self._cluster.list_bindings)):
            for metadata in await listed(namespace, selector):
                driver_id = DriverId(metadata.labels.get(DRIVER, ""))
                if is_driver_id(driver_id) and metadata.name == account_name(driver_id):
                    found.add(driver_id)
                else:
                    self._strays.tell(kind, metadata, f"its label {DRIVER} and its name don't fit together")
        return found

    async def let_go(self, namespace: str, driver_id: DriverId) -> bool:
        """Take the marks off the holder's pod if it is all that is left. Whether that is done; else it is to be tried again."""
        pods, _ = await self._cluster.list_pods(namespace, of_driver(self._owner, driver_id))
        if any(not pod.is_holder for pod in pods):
            return False
        for pod in pods:
            try:
                await self._cluster.patch_pod(pod, _holder.unclaim(pod))
            except ApiFailed as error:
                if error.code == HTTPStatus.CONFLICT:
                    return False  # it has changed since it was looked at
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
        return True

    async def fence(self, pod: Pod, driver_id: DriverId, role: str) -> None:
        """End what a former attachment has: its credential and its executors. The next one's rights are made anew."""
        await self.revoke(pod.metadata.namespace, driver_id)
        await self._cluster.delete_pods(pod.metadata.namespace, deletable(self._owner, driver_id), None)
        await self.give_rights(pod, driver_id, role)

    async def access(self, request: DriverRequest, pod: Pod) -> ClientAccess:
        """Conf and a new credential for the session in this pod."""
        conf, template = _holder.session(request, pod, self._owner)
        name, seconds = account_name(request.driver_id), int(request.profile.client_credential_ttl)
        try:
            token, expires = await self._cluster.account_token(pod.metadata.namespace, name, seconds)
        except ApiFailed as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            # Somebody has deleted it.
            await self.give_rights(pod, request.driver_id, request.profile.client_role)
            token, expires = await self._cluster.account_token(pod.metadata.namespace, name, seconds)
        return ClientAccess(
            conf=conf,
            executor_pod_template=msgspec.json.encode(template).decode(),
            token=token,
            ca_certificate=await self._cluster.api.ca_certificate(),
            expires=expires,
            python_version=request.profile.pod.python_version,
        )
