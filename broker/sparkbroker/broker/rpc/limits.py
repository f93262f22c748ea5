"""Bounds of the server: every message, stream, wait and number of them has one."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. The defaults suit one broker with some thousand holders; each can be configured."""

    message_bytes: int = 256 * 1024
    """Of one request. A larger one is RESOURCE_EXHAUSTED before it is read."""
    concurrent_rpcs: int = 20_000
    """At once, per listener, streams included. More are RESOURCE_EXHAUSTED."""
    streams_per_connection: int = 2_000
    """Calls at once on one HTTP/2 connection; a client waits, or opens another one."""
    streams_per_principal: int = 1_000
    """Watches, keepalives and logs at once; more are TOO_MANY."""
    unary_seconds: float = 60.0
    """Of a call that brings no deadline, or a longer one; and of one message of a stream that is answered."""
    stream_seconds: float = 1_800.0
    """Age at which a stream is ended with OK; the client resumes. It bounds what a client that vanished can hold."""
    ping_seconds: float = 5.0
    """A client that pings more often is sent away (HTTP/2 ping strikes)."""
    keepalive_seconds: float = 60.0
    """A connection that has been silent for this long is asked whether it lives."""
    keepalive_timeout_seconds: float = 20.0
    """… and closed unless it answers within this."""

    def options(self) -> list[tuple[str, int]]:
        """As channel arguments of gRPC."""
        return [
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_concurrent_streams", self.streams_per_connection),
            # A connection outlives its oldest stream by a minute, and no more: clients spread anew over time.
            ("grpc.max_connection_age_ms", _ms(self.stream_seconds)),
            ("grpc.max_connection_age_grace_ms", _ms(self.stream_seconds + self.unary_seconds)),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.ping_seconds)),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_seconds)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_seconds)),
            # Two brokers on one port would share its calls between them, unnoticed.
            ("grpc.so_reuseport", 0),
        ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
