"""Bounds of the server: every message, stream, wait and number of them has one."""

import msgspec

LOOKAHEAD: int = 16 * 1024
"""Bytes that a peer may send of a message before somebody reads it: most requests whole."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. The defaults suit one broker with some thousand holders; each can be configured."""

    message_bytes: int = 256 * 1024
    """Of one request. A larger one is RESOURCE_EXHAUSTED before it is read."""
    concurrent_rpcs: int = 20_000
    """Calls of authenticated callers at once, per listener, streams included; more are TOO_MANY."""
    calls_per_principal: int = 1_000
    """Unary calls of one principal at once, those included whose answer its peer hasn't taken; more are TOO_MANY."""
    requests_read_per_principal: int = 64
    """So many of a principal's calls read their request at once; more wait for their turn within ``request_seconds``."""
    answer_bytes_per_principal: int = 32 * 1024 * 1024
    """Bytes that the principal's peers haven't taken yet: of the answers of unary calls, of watches and logs, of heartbeats, each
    by itself. A call whose answer is one too many is TOO_MANY; a stream waits."""
    anonymous_calls: int = 100
    """Calls without a token at once (health, reflection), on all listeners together. One more ends the oldest one of the
    connection that has most, so nobody can shut a health check out."""
    request_seconds: float = 10.0
    """From the headers of a call to the end of its first message; later is DEADLINE_EXCEEDED."""
    answer_seconds: float = 30.0
    """From an answer to its being taken by the peer; a connection that takes longer is closed."""
    page_bytes: int = 1024 * 1024
    """The items of one page; the next page has the rest. A page has at least one item."""
    streams_per_connection: int = 100
    """Calls at once on one HTTP/2 connection; a client waits, or opens another one."""
    streams_per_principal: int = 2_000
    """Watches, keepalives and logs at once; more are TOO_MANY."""
    connections: int = 10_000
    """Of TCP, on all listeners together. More: see ``crowding``."""
    connections_per_principal: int = 5_000
    """Of TCP, that have made a call with a token of this principal."""
    unauthenticated_connections: int = 200
    """Of TCP, that haven't made a call with a token yet. One more closes the oldest one of the address that has most."""
    unauthenticated_seconds: float = 10.0
    """A TCP connection that has made no call with a token, and has no call under way that needs none, is closed after this
    (since its last one)."""
    refusals_per_connection: int = 10
    """A TCP connection that has made so many calls without a known token, and none with one, is closed."""
    cancelled_per_connection: int = 1_000
    """A TCP connection that takes so many calls back is closed, unless it does so slowly (``crowding.RECOVERY``)."""
    unary_seconds: float = 60.0
    """Of a call that brings no deadline, or a longer one; and of one message of a stream that is answered."""
    stream_seconds: float = 3_600.0
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
            # What gRPC holds of messages that nobody reads: of each stream so much, and it never grows.
            ("grpc.http2.lookahead_bytes", LOOKAHEAD),
            ("grpc.http2.bdp_probe", 0),
            # gRPC refuses calls at random when more wait for this process than this: connections have bounds instead.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 2_000_000),
            # The last resort, for what comes between two looks of ``connections``.
            ("grpc.max_allowed_incoming_connections", self.connections + self.unauthenticated_connections),
            ("grpc.server_handshake_timeout_ms", _ms(self.unauthenticated_seconds)),
            ("grpc.http2.settings_timeout", _ms(self.unauthenticated_seconds)),
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
