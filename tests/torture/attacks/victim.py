"""What an attacker has."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from sparkbroker.v1 import broker_pb2_grpc as pb_grpc


class Victim(NamedTuple):
    """What an attacker knows. ``tokens``: by principal; an attack without a token uses none of them. ``achieved`` counts what
    it did, by kind: an attack that is refused at its first step proves nothing."""

    folder: Path
    port: int
    metrics_port: int
    pid: int
    tokens: Mapping[str, str]
    achieved: Counter[str]

    def channel(self, **options: int) -> grpc.aio.Channel:
        """A connection of its own. ``options``: gRPC's, with ``_`` for ``.``."""
        shared = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        extra = [(name.replace("_", ".", 1), value) for name, value in options.items()]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=[*shared, *extra])

    def stub(self, channel: grpc.aio.Channel) -> Any:
        return pb_grpc.BrokerServiceStub(channel)

    def headers(self, principal: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.tokens[principal]}"),)
