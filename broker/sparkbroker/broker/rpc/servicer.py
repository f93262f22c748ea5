"""BrokerService: each method reads its request, calls one use case, and answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

from sparkbroker.broker.app.leases import Leases, sort_key
from sparkbroker.broker.app.views import Renewed, WatchUpdate
from sparkbroker.broker.domain.errors import BrokerError, InvalidField
from sparkbroker.broker.domain.lease.filter import parse_filter, parse_order
from sparkbroker.broker.domain.units import Generation, LeaseId
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.ports.provisioner import LogChunk
from sparkbroker.broker.rpc import convert, parse, showing
from sparkbroker.broker.rpc.errors import wire_code, wire_message
from sparkbroker.broker.rpc.pages import PageTokens, page_size
from sparkbroker.v1 import broker_pb2 as pb

MAX_RENEWALS: Final = 1000
RENEWALS_AT_ONCE: Final = 50
"""Of one request, before others are served: about a millisecond."""

BYTES_AT_ONCE: Final = 128 * 1024
"""Of a page, before others are served: about a millisecond."""

V = TypeVar("V")


class BrokerServicer:
    """Methods take who calls and a well-formed message, and raise the errors of ``domain.errors``.

    Streams are async generators of the use cases' values; ``convert`` turns those into messages.
    """

    def __init__(self, leases: Leases, pages: PageTokens, page_bytes: int) -> None:
        self._leases = leases
        self._pages = pages
        self._page_bytes = page_bytes

    async def acquire_lease(self, caller: Caller, request: pb.AcquireLeaseRequest) -> pb.AcquireLeaseResponse:
        acquired = await self._leases.acquire(
            caller,
            request_id=request.request_id,
            key=request.lease_key,
            on_existing=parse.on_existing(request.on_existing),
            request=parse.spec_request(request.spec),
        )
        return pb.AcquireLeaseResponse(lease=showing.lease(acquired.view), existing=acquired.existing)

    async def get_lease(self, caller: Caller, request: pb.GetLeaseRequest) -> pb.GetLeaseResponse:
        view = await self._leases.get(caller, parse.lease_id(request.name))
        return pb.GetLeaseResponse(lease=showing.lease(view))

    async def list_leases(self, caller: Caller, request: pb.ListLeasesRequest) -> pb.ListLeasesResponse:
        selection, descending = parse_filter(request.filter), parse_order(request.order_by)
        # A token is bound to what the filter means, not to how it was written, and to what its caller may see.
        query = ("ListLeases", caller.principal, str(caller.operator), repr(selection), str(descending))
        page = await self._leases.list(
            caller,
            selection,
            descending=descending,
            after=self._pages.read(query, request.page_token),
            limit=page_size(request.page_size),
        )
        leases: list[pb.Lease] = []
        size, paused, next_after = 0, 0, page.next_after
        for view, before in zip(page.views, (None, *page.views), strict=False):
            lease = showing.lease(view)
            size += lease.ByteSize()
            if before is not None and size > self._page_bytes:
                next_after = sort_key(before.lease)
                break
            leases.append(lease)
            if size - paused > BYTES_AT_ONCE:
                paused = size
                await asyncio.sleep(0)
        return pb.ListLeasesResponse(
            leases=leases,
            next_page_token="" if next_after is None else self._pages.issue(query, next_after),
            revision=page.revision,
        )

    def watch_lease(self, caller: Caller, request: pb.WatchLeaseRequest) -> AsyncIterator[WatchUpdate]:
        lease_id = parse.lease_id(request.name)
        return self._leases.watch(caller, lease_id, parse.after_revision(request.after_revision))

    def watch_leases(self, caller: Caller, request: pb.WatchLeasesRequest) -> AsyncIterator[WatchUpdate]:
        selection = parse.watch_filter(request.filter)
        return self._leases.watch_all(caller, selection, parse.after_revision(request.after_revision))

    async def attach_lease(self, caller: Caller, request: pb.AttachLeaseRequest) -> pb.AttachLeaseResponse:
        attached = await self._leases.attach(
            caller, parse.lease_id(request.name), request_id=request.request_id, holder=request.holder
        )
        return pb.AttachLeaseResponse(
            lease=showing.lease(attached.view),
            attachment=convert.attachment(attached.attachment),
            ttl=convert.duration(attached.ttl),
        )

    async def keep_alive(self, caller: Caller, request: pb.KeepAliveRequest) -> pb.KeepAliveResponse:
        """Results in the order of the renewals. A refusal is that renewal's result: it must not end the heartbeats of the
        others."""
        if len(request.renewals) > MAX_RENEWALS:
            raise InvalidField(
                "renewals", f"{len(request.renewals)} in one request", f"send at most {MAX_RENEWALS}, and more requests"
            )
        answer = pb.KeepAliveResponse()
        for begin in range(0, len(request.renewals), RENEWALS_AT_ONCE):
            if begin:
                await asyncio.sleep(0)
            await self._renew(caller, request.renewals[begin : begin + RENEWALS_AT_ONCE], answer)
        return answer

    async def _renew(self, caller: Caller, renewals: Sequence[pb.Renewal], answer: pb.KeepAliveResponse) -> None:
        read = [_read(renewal) for renewal in renewals]
        outcomes = iter(await self._leases.renew_all(caller, [one for one in read if not isinstance(one, BrokerError)]))
        for renewal, one in zip(renewals, read, strict=True):
            result = answer.results.add(name=renewal.name, generation=renewal.generation)
            _tell(result, one if isinstance(one, BrokerError) else next(outcomes))

    async def renew_lease(self, caller: Caller, request: pb.RenewLeaseRequest) -> pb.RenewLeaseResponse:
        lease_id, generation = parse.lease_id(request.name), parse.generation(request.generation)
        return convert.renewed(await self._leases.renew(caller, lease_id, generation))

    async def release_lease(self, caller: Caller, request: pb.ReleaseLeaseRequest) -> pb.ReleaseLeaseResponse:
        lease_id, generation = parse.lease_id(request.name), parse.generation(request.generation)
        view = await self._leases.release(caller, lease_id, generation, request.message)
        return pb.ReleaseLeaseResponse(lease=showing.lease(view))

    async def get_connection(self, caller: Caller, request: pb.GetConnectionRequest) -> pb.GetConnectionResponse:
        lease_id, generation = parse.lease_id(request.name), parse.generation(request.generation)
        return convert.connection(await self._leases.connection(caller, lease_id, generation))

    def stream_logs(self, caller: Caller, request: pb.StreamLogsRequest) -> AsyncIterator[LogChunk]:
        lease_id = parse.lease_id(request.name)
        offset, tail_lines, attempt = parse.log_range(request)
        return self._leases.logs(
            caller,
            lease_id,
            offset=offset,
            tail_lines=tail_lines,
            follow=request.follow,
            attempt=attempt,
            executors=parse.executor_offsets(request),
        )

    async def list_queues(self, caller: Caller, request: pb.ListQueuesRequest) -> pb.ListQueuesResponse:
        page, token = self._page("ListQueues", caller, request, self._leases.queues(caller), lambda view: view.name)
        return pb.ListQueuesResponse(queues=[convert.queue(view) for view in page], next_page_token=token)

    async def list_profiles(self, caller: Caller, request: pb.ListProfilesRequest) -> pb.ListProfilesResponse:
        views = self._leases.profiles(caller)
        page, token = self._page("ListProfiles", caller, request, views, lambda view: view.profile.name)
        return pb.ListProfilesResponse(profiles=[convert.profile(view) for view in page], next_page_token=token)

    def _page(
        self,
        method: str,
        caller: Caller,
        request: pb.ListQueuesRequest | pb.ListProfilesRequest,
        views: Sequence[V],
        name: Callable[[V], str],
    ) -> tuple[list[V], str]:
        """A page by name, and the token of the next one."""
        query = (method, caller.principal)
        after = self._pages.read(query, request.page_token)
        size = page_size(request.page_size)
        rest = sorted((view for view in views if after is None or name(view) > after[1]), key=name)
        token = self._pages.issue(query, (0.0, name(rest[size - 1]))) if len(rest) > size else ""
        return rest[:size], token


def _read(renewal: pb.Renewal) -> tuple[LeaseId, Generation] | BrokerError:
    try:
        return parse.lease_id(renewal.name), parse.generation(renewal.generation)
    except BrokerError as error:
        return error


def _tell(result: pb.RenewalResult, outcome: Renewed | BrokerError) -> None:
    if isinstance(outcome, BrokerError):
        result.code = wire_code(outcome)
        result.error_reason = outcome.reason
        result.message = wire_message(outcome)
        return
    result.state = convert.STATES[outcome.state]
    result.message = outcome.notice
    if (ttl := convert.duration(outcome.ttl)) is not None:
        result.ttl.CopyFrom(ttl)
