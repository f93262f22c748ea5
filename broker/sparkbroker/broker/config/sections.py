"""The broker's own sections of the file: what each key means, its default, and how ``[server]``, ``[store]`` and
``[leases]`` agree within themselves."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparkbroker.broker.config.fields import (
    AbsolutePath,
    Address,
    Cpu,
    Duration,
    Label,
    Listen,
    Memory,
    Name,
    is_loopback,
    split_host_port,
    write_duration,
    wrong,
)
from sparkbroker.broker.domain.asking.durations import DAY, DURATIONS
from sparkbroker.broker.domain.capacity.queue import MAX_PRIORITY, PriorityBounds
from sparkbroker.broker.domain.capacity.queue import Queue as QueueValue

_PRIORITY: Final = PriorityBounds()
_QUEUE: Final = QueueValue(name="")


class Section(BaseModel):
    """A table of the file. Unknown keys are refused; a section never changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, str_max_length=4096)


class Server(Section):
    """``[server]``: where the broker listens, who may call, and how it speaks of itself."""

    listen: tuple[Listen, ...] = Field(default=(), max_length=16)
    """``unix:PATH`` or ``tcp://HOST:PORT``. Empty: ``unix:<store.state_folder>/run/broker.sock``."""
    tls_cert: AbsolutePath | None = None
    """PEM: the certificate and its chain, for all TCP addresses. Once replaced, new connections are served the new one."""
    tls_key: AbsolutePath | None = None
    """PEM: the certificate's private key."""
    tokens: AbsolutePath | None = None
    """The file of hashed static tokens (``sparkbroker token new``). A changed one is read again within seconds."""
    metrics: Address = ""
    """``127.0.0.1:9464``: where Prometheus reads. Empty: nowhere."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, else json."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_message_bytes: int = Field(default=256 << 10, ge=64 << 10, le=64 << 20)
    """The largest request."""
    max_concurrent_rpcs: int = Field(default=20_000, ge=16, le=1_000_000)
    """On each address of ``listen``, over all its connections: who fills one doesn't shut out another. Beyond it calls
    are refused with RESOURCE_EXHAUSTED. Health and reflection have a bound of their own."""
    max_concurrent_streams: int = Field(default=100, ge=1, le=100_000)
    """Calls on one connection at a time, watches included. A client waits for a free one."""
    max_calls_per_principal: int = Field(default=1_000, ge=1, le=1_000_000)
    """Calls of one principal at a time, watches excluded. A call whose answer its client hasn't taken yet counts."""
    max_answers_per_principal: Memory = 32 << 20
    """Bytes that one principal's clients haven't taken yet: of answers to calls, of watches and logs, and of heartbeats, each by
    itself. Beyond it, its calls are refused, and its watches, logs and heartbeats wait."""
    max_anonymous_calls: int = Field(default=100, ge=1, le=100_000)
    """Calls without a token (health, reflection) at a time. One more ends the oldest one."""
    max_watches_per_principal: int = Field(default=2_000, ge=1, le=1_000_000)
    """Watches, keepalives and followed logs of one principal."""
    max_logs_per_principal: int = Field(default=100, ge=1, le=100_000)
    """Logs that one principal reads at a time. They count as watches, too."""
    max_log_rate_per_principal: Annotated[Memory, Field(ge=64 << 10)] = 16 << 20
    """Bytes of logs that one principal is sent in a second."""
    max_connections: int = Field(default=10_000, ge=16, le=1_000_000)
    """TCP connections. Fewer if the process may open fewer files (``ulimit -Hn``): it keeps some for itself."""
    max_connections_per_principal: int = Field(default=5_000, ge=1, le=1_000_000)
    """TCP connections on which a principal has made calls. Beyond it, those without a call are closed, then the newest."""
    max_unauthenticated_connections: int = Field(default=200, ge=1, le=100_000)
    """TCP connections on which nobody has shown a token yet. Beyond it the oldest of the address with most is closed."""
    unauthenticated_timeout: Duration = 10.0
    """A TCP connection on which nobody has shown a token, or asked for the broker's health, is closed after this."""
    max_cancelled_per_connection: int = Field(default=1_000, ge=100, le=1_000_000)
    """A TCP connection that takes back so many calls, faster than 10 in a second, is closed."""
    request_timeout: Duration = 10.0
    """From the start of a call to the end of its request."""
    answer_timeout: Duration = 30.0
    """A connection that doesn't take an answer within this is closed."""
    max_page_bytes: int = Field(default=1 << 20, ge=64 << 10, le=8 << 20)
    """The largest page of a list; the next page has the rest."""
    max_stream_age: Duration = 3600.0
    """A watch, keepalive or log stream is ended (with OK; clients resume) after this."""
    shutdown_grace: Duration = 10.0
    """How long calls that are under way may take to finish when the broker stops."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise wrong("server.tls_cert and server.tls_key belong together", "set both or none")
        for address in self.tcp:
            if self.tokens is None:
                raise wrong(
                    f"server.listen has {address}, and server.tokens is not set: anybody could call",
                    "set server.tokens, or listen on a unix socket only",
                )
            if self.tls_cert is None and not is_loopback(split_host_port(address.removeprefix("tcp://"))[0]):
                raise wrong(
                    f"server.listen has {address}, which other machines can reach, without TLS",
                    "set server.tls_cert and server.tls_key, or listen on 127.0.0.1",
                )
        return self

    @property
    def tcp(self) -> tuple[str, ...]:
        """The TCP addresses, as written."""
        return tuple(address for address in self.listen if address.startswith("tcp://"))


class Store(Section):
    """``[store]``: what is kept, where, and how long."""

    state_folder: AbsolutePath
    """Database, socket, logs and drivers' records. Default: ``$XDG_STATE_HOME/sparkbroker``."""
    cache_folder: AbsolutePath | None = None
    """What may be made again: class archives, resolved packages. Default: ``cache`` in the state folder."""
    class_archives: bool = True
    """Make class archives in the background, which halve the start of later drivers (about 200 MB each)."""
    kind: Literal["sqlite", "memory"] = "sqlite"
    """``memory`` forgets everything when the broker ends: for tests, and for embedded brokers."""
    ballast: Memory = 32 << 20
    """A file that is freed, bit by bit, when the disk is full, so that leases can still be used and ended. Up to half of the
    default is needed to write down what was changed just before."""
    terminal_age: Duration = 7 * DAY
    """Leases that have ended, with their logs, are kept this long."""
    terminal_count: int = Field(default=10_000, ge=0, le=10_000_000)
    """… and at most so many of them. Beyond it, the principal that has most loses its oldest."""
    terminal_bytes: Memory = 64 << 20
    """… and at most so many bytes of them, likewise: their specs and the ends of their drivers' logs."""
    event_count: int = Field(default=200_000, ge=1_000, le=100_000_000)
    """A watch can resume within this many events."""
    event_bytes: Memory = 256 << 20
    """… and within so many bytes of them."""
    request_age: Duration = DAY
    """A repeated request_id gets its first answer for this long, counted while the broker serves."""
    requests_per_principal: int = Field(default=200_000, ge=100, le=100_000_000)
    """So many request ids of one principal are remembered at a time, each some 250 bytes of memory. Beyond it, it is
    refused until the oldest is older than ``request_age``."""


class Leases(Section):
    """``[leases]``: what a request gets that doesn't say, and how many there may be."""

    default_profile: Name | None = None
    """Default: the only profile, or the one that is called ``default``."""
    default_queue: Name | None = None
    """Default: the only queue, or the one that is called ``default``."""
    ttl: Duration = 30.0
    """An attachment that isn't renewed ends after this."""
    wait_ttl: Duration = 300.0
    """A queued or starting lease that nobody watches or renews ends after this."""
    unattended_ttl: Duration = 300.0
    """A ready lease without an attachment ends after this."""
    acquire_timeout: Duration | None = None
    """A lease that isn't ready this long after it was asked for ends. Unset: it may wait for ever."""
    max_duration: Duration | None = None
    """A lease ends this long after it became ready. Unset: no bound."""
    max_live_per_principal: int = Field(default=1_000, ge=1, le=1_000_000)
    """Live leases of one principal."""
    max_spec_bytes: Memory = 64 << 10
    """The largest spec, with what its profile gives: as JSON, and 100 bytes for each value in ``pod``."""
    max_live_spec_bytes_per_principal: Memory = 16 << 20
    """Bytes of all different specs of one principal's live leases."""
    max_queued: int = Field(default=_QUEUE.max_queued, ge=1, le=1_000_000)
    """Waiting leases of one queue, unless the queue says otherwise."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # A default that a request may not ask for would be refused with every lease.
        for name, bounds in DURATIONS.items():
            value = getattr(self, name)
            if value is not None and not bounds.include(value):
                raise wrong(
                    f"leases.{name} ({value:g}s) is out of range",
                    f"leases.{name} must be from {write_duration(bounds.low)} to {write_duration(bounds.high)}",
                )
        if self.wait_ttl < self.ttl:
            raise wrong(
                f"leases.wait_ttl ({self.wait_ttl:g}s) is less than leases.ttl ({self.ttl:g}s): a waiting client, which"
                " renews every third of its ttl, could lose its place",
                "leases.wait_ttl must be at least leases.ttl",
            )
        return self


class Local(Section):
    """``[local]``: for all profiles with that provisioner."""

    max_downloads: int = Field(default=4, ge=2, le=64)
    """Jars that are downloaded at a time; one principal has half of them. Half as many resolutions of packages."""
    download_timeout: Duration = 600.0
    """A download, or a resolution of packages, fails after this. One that sends next to nothing fails within a minute."""
    max_jar_bytes: Memory = 1 << 30
    """The largest jar that is downloaded."""


class Kubernetes(Section):
    """``[kubernetes]``: of all profiles with that provisioner."""

    owner: Label = ""
    """By this value of the label ``sparkbroker.io/owner`` the broker knows its pods; no two brokers of a cluster may have
    the same. Unset: made of the key in ``store.state_folder``. Set: found again even when that folder is lost. A broker
    whose owner has changed doesn't know the pods it made before: release all leases first."""


class Pool(Section):
    """``[capacity.NAME]``: what may be charged at once. ``local`` is this machine, and defaults to all of it."""

    cpu: Cpu | None = None
    """Cores: ``8``, ``0.5`` or ``"500m"``."""
    memory: Memory | None = None


class Priority(Section):
    """``[queues.NAME.priority]``: which priorities may be asked for. Everybody may have a profile's default."""

    min: int = Field(default=_PRIORITY.min, ge=-MAX_PRIORITY, le=0)
    """By users. One step is worth ``priority_step`` of waiting."""
    max: int = Field(default=_PRIORITY.max, ge=0, le=MAX_PRIORITY)
    operator_min: int = Field(default=_PRIORITY.operator_min, ge=-MAX_PRIORITY, le=0)
    """By operators."""
    operator_max: int = Field(default=_PRIORITY.operator_max, ge=0, le=MAX_PRIORITY)


class Queue(Section):
    """``[queues.NAME]``: a share of the capacity."""

    cpu: Cpu | None = None
    """Its quota of cores. Unset: all of every pool."""
    memory: Memory | None = None
    """Its quota of memory. Unset: all of every pool."""
    priority_step: Duration = _QUEUE.priority_step
    """How much waiting one step of priority is worth."""
    priority: Priority = Priority()
    bypass_budget: int = Field(default=_QUEUE.bypass_budget, ge=0, le=1_000_000)
    """So many smaller leases may pass a large one before capacity is kept for it."""
    users: tuple[str, ...] = ()
    """Principals that may use it. Empty: all."""
    max_queued: int | None = Field(default=None, ge=1, le=1_000_000)
    """Default: ``leases.max_queued``."""
