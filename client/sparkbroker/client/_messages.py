"""What the broker answers, as the protocol's messages."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from sparkbroker.client._rpc import Rpc
from sparkbroker.v1 import broker_pb2 as pb

_PAGE_SIZE: Final = 1000


class Messages:
    """The reads and releases of an AsyncBroker by the same names, for programs that pass on what they get, as JSON for one."""

    def __init__(self, rpc: Callable[[], Rpc]) -> None:
        self._rpc = rpc

    async def get(self, name: str) -> pb.Lease:
        """Read a lease."""
        response = await self._rpc().call("GetLease", pb.GetLeaseRequest(name=name), pb.GetLeaseResponse)
        return response.lease

    async def list(self, filter: str = "", *, order_by: str = "", limit: int | None = None) -> Sequence[pb.Lease]:
        """All leases that the filter selects, at most ``limit``, newest first. The filter's form is ListLeasesRequest's."""
        found: list[pb.Lease] = []
        token = ""
        while limit is None or len(found) < limit:
            size = _PAGE_SIZE if limit is None else min(_PAGE_SIZE, limit - len(found))
            request = pb.ListLeasesRequest(page_size=size, page_token=token, filter=filter, order_by=order_by)
            page = await self._rpc().call("ListLeases", request, pb.ListLeasesResponse)
            found.extend(page.leases)
            token = page.next_page_token
            if not token:
                break
        return found

    async def watch(self, name: str, after_revision: int = 0) -> AsyncIterator[pb.WatchLeaseResponse]:
        """Follow a lease to its end; resumes over broken connections. Raise EventsCompacted, BrokerUnreachable."""
        async for update in self._rpc().watch(name, after_revision):
            if isinstance(update, pb.WatchLeaseResponse):
                yield update

    async def watch_all(self, filter: str = "", after_revision: int = 0) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Follow all leases that the filter selects, for ever; otherwise as ``watch``."""
        async for update in self._rpc().watch_all(filter, after_revision):
            yield update

    async def release(self, name: str, message: str = "") -> pb.Lease:
        """Release a lease, whoever is attached to it."""
        request = pb.ReleaseLeaseRequest(name=name, message=message)
        return (await self._rpc().call("ReleaseLease", request, pb.ReleaseLeaseResponse)).lease

    async def force_release(self, name: str, message: str = "") -> tuple[pb.Lease, str]:
        """For operators: end a lease, and stop waiting for what can't be confirmed gone, such as pods on a dead node.

        Returns the lease and what was done, for people. Its capacity is free once nothing of it is on record.
        """
        from sparkbroker.v1 import admin_pb2  # noqa: PLC0415  operators only

        request = admin_pb2.ForceReleaseRequest(name=name, message=message)
        answer = await self._rpc().call("ForceRelease", request, admin_pb2.ForceReleaseResponse)
        return answer.lease, answer.done

    async def queues(self) -> Sequence[pb.Queue]:
        """The queues that the caller may use."""
        found: list[pb.Queue] = []
        token = ""
        while True:
            request = pb.ListQueuesRequest(page_size=_PAGE_SIZE, page_token=token)
            page = await self._rpc().call("ListQueues", request, pb.ListQueuesResponse)
            found.extend(page.queues)
            token = page.next_page_token
            if not token:
                return found

    async def profiles(self) -> Sequence[pb.Profile]:
        """The profiles that the caller may use."""
        found: list[pb.Profile] = []
        token = ""
        while True:
            request = pb.ListProfilesRequest(page_size=_PAGE_SIZE, page_token=token)
            page = await self._rpc().call("ListProfiles", request, pb.ListProfilesResponse)
            found.extend(page.profiles)
            token = page.next_page_token
            if not token:
                return found

    async def all_logs(
        self, name: str, *, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        """The logs of a driver and of its executors, in pieces that say whose they are: ``source`` is the executor's pod,
        or empty."""
        request = pb.StreamLogsRequest(name=name, tail_lines=tail_lines, follow=follow, attempt=attempt, executors=True)
        async for chunk in self._rpc().logs(request):
            yield chunk
