"""AdminService: what operators do. The use cases refuse others."""

from sparkbroker.broker.app.leases import Leases
from sparkbroker.broker.ports.authenticator import Caller
from sparkbroker.broker.rpc import parse, showing
from sparkbroker.v1 import admin_pb2 as pb


class AdminServicer:
    """As BrokerServicer."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    async def force_release(self, caller: Caller, request: pb.ForceReleaseRequest) -> pb.ForceReleaseResponse:
        forced = await self._leases.force_release(caller, parse.lease_id(request.name), request.message)
        return pb.ForceReleaseResponse(lease=showing.lease(forced.view), done=forced.done)
