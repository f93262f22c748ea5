"""Composition: the one place that sees the configuration and every adapter.

``serve`` is a whole broker, from taking the state folder to letting it go.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from sparkbroker.broker.adapters.kubernetes_provisioner import KubernetesProvisioner
from sparkbroker.broker.adapters.local_provisioner import Bounds, Jars, Launcher, LocalProvisioner, SparkLauncher
from sparkbroker.broker.adapters.local_user import LocalUser
from sparkbroker.broker.adapters.memory_store import MemoryDatabase, MemoryStore
from sparkbroker.broker.adapters.open_files import connections_for, raise_open_files
from sparkbroker.broker.adapters.prometheus_metrics import PrometheusMetrics
from sparkbroker.broker.adapters.sql_store import SqlStore, StateFolder
from sparkbroker.broker.adapters.static_provisioner import StaticProvisioner
from sparkbroker.broker.adapters.static_tokens import StaticTokens
from sparkbroker.broker.adapters.system_clock import SystemClock
from sparkbroker.broker.adapters.token_follower import TokenFollower
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.commits import StoreLost
from sparkbroker.broker.app.janitor import Retention
from sparkbroker.broker.config import (
    Config,
    capacity_warnings,
    check_principals,
    to_capacity,
    to_profiles,
    to_queues,
)
from sparkbroker.broker.core import Core
from sparkbroker.broker.domain.errors import BrokerError, Unavailable
from sparkbroker.broker.domain.units import Principal, Seconds
from sparkbroker.broker.log_setup import set_up
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.provisioner import Provisioner
from sparkbroker.broker.ports.store import Store
from sparkbroker.broker.rpc.certificates import Tls
from sparkbroker.broker.rpc.limits import Limits
from sparkbroker.broker.rpc.listeners import Listener, TcpListener, UnixListener
from sparkbroker.broker.rpc.server import BrokerServer
from sparkbroker.broker.rpc.showing import prove

log = structlog.get_logger()


async def serve(
    config: Config, *, embedded: bool = False, parent_fd: int | None = None, launcher: Launcher | None = None
) -> None:
    """A broker until SIGTERM, SIGINT or the end of ``parent_fd``; then it finishes what it accepted (promise 15).

    ``embedded``: its drivers end with it, also when it is killed. ``launcher``: what local drivers are started as, by
    default Spark. Raise BrokerError for what keeps it from serving,
    and Unavailable when the store is lost meanwhile.
    """
    form = config.server.log_format
    set_up(form=form if form != "auto" else "console" if sys.stderr.isatty() else "json", level=config.server.log_level)
    folder = StateFolder(config.store.state_folder, ballast_size=config.store.ballast, create_parents=True)
    with _private_files() as umask, folder:
        await _Broker(config, folder, embedded=embedded, launcher=launcher, umask=umask).run(parent_fd)


@contextmanager
def _private_files() -> Iterator[int]:
    """What this process makes is its user's alone, whatever umask it was started with. Yield the one for drivers, whose files
    are their holders': as it was, unless that lets everybody write, which is taken for none at all."""
    given = os.umask(0o077)
    try:
        yield given if given & 0o002 else given | 0o022
    finally:
        os.umask(given)


def read_tokens(config: Config) -> StaticTokens | None:
    """The tokens of who may call over TCP; None where nothing listens on it: then the file isn't opened.

    Raise TokenFileInvalid for the file, and ConfigError for who is in it; the same holds when they are reloaded.
    """
    if config.server.tokens is None or not config.server.tcp:
        return None
    beside = {LocalUser().principal} if len(config.server.tcp) < len(config.listen) else set[Principal]()
    return StaticTokens(config.server.tokens, lambda users: check_principals(config, beside.union(users)))


class _Broker:
    """All parts of one broker, for the life of ``serve``."""

    def __init__(
        self, config: Config, folder: StateFolder, *, embedded: bool, launcher: Launcher | None, umask: int
    ) -> None:
        clock = SystemClock()
        self._config = config
        self._embedded = embedded
        self._metrics = PrometheusMetrics()
        self._tokens = read_tokens(config)
        self._follower = TokenFollower(self._tokens) if self._tokens is not None else None
        profiles = to_profiles(config)
        cache = config.store.cache_folder or folder.cache
        kubernetes = KubernetesProvisioner(
            folder=folder.path / "pods",
            key=folder.key,
            owner=config.kubernetes.owner,
            profiles=profiles.values(),
            clock=clock,
            embedded=embedded,
        )
        self._metrics.observe_calls(kubernetes.calls)
        self._provisioners: Mapping[str, Provisioner] = {
            "local": LocalProvisioner(
                folder=folder.drivers,
                cache=cache,
                key=folder.key,
                embedded=embedded,
                clock=clock,
                umask=umask,
                launcher=launcher or self._spark(cache, clock),
            ),
            "static": StaticProvisioner(folder=folder.path / "endpoints", clock=clock),
            "kubernetes": kubernetes,
        }
        found = {pool: size for each in self._provisioners.values() for pool, size in each.capacity().items()}
        pools = to_capacity(config, found)
        for warning in capacity_warnings(config, pools):
            log.warning("config.capacity", message=warning)
        self._core = Core(
            catalogue=Catalogue(
                profiles=profiles,
                queues=to_queues(config, pools),
                pools=pools,
                default_profile=config.default_profile,
                default_queue=config.default_queue,
                show=prove,
            ),
            store=_store(config, folder),
            provisioners=self._provisioners,
            clock=clock,
            metrics=self._metrics,
            retention=_retention(config),
            allowance=_allowance(config),
        )
        self._server = BrokerServer(
            self._core.leases,
            [self._listener(address) for address in config.listen],
            metrics=self._metrics,
            broker_key=folder.key,
            limits=_limits(config, raise_open_files()),
        )

    def _spark(self, cache: Path, clock: Clock) -> SparkLauncher:
        jars = Jars(cache, _bounds(self._config), self._metrics.limited)
        return SparkLauncher(cache, clock, archives=self._config.store.class_archives, jars=jars)

    async def run(self, parent_fd: int | None) -> None:
        stop = asyncio.Event()
        handlers = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: self._reload}
        with _signals(handlers), _end_of(parent_fd, stop.set):
            try:
                log.info("broker.recovering", pid=os.getpid())
                await self._core.lead()
                self._serve_metrics()
                await self._serve(stop)
            except* StoreLost as group:
                raise Unavailable(f"the store is lost ({_first(group)}); start the broker again") from group
            except* BrokerError as group:
                raise _first(group) from group
            finally:
                self._metrics.close()
                await self._core.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self._core.run(), name="core")
            await self._server.start()
            beside = [
                group.create_task(self._announce(), name="announce"),
                group.create_task(self._server.run(), name="server"),
            ]
            if self._follower is not None:
                beside.append(group.create_task(self._follower.run(), name="follow-tokens"))
            try:
                await stop.wait()
                log.info("broker.stopping", embedded=self._embedded)
            finally:
                for task in beside:
                    task.cancel()
                self._metrics.serving = False
                await self._server.stop(self._config.server.shutdown_grace)
                self._core.stop()
            await running
        log.info("broker.stopped")

    async def _announce(self) -> None:
        await self._core.inventory.complete.wait()
        self._server.set_serving(True)
        self._metrics.serving = True
        log.info("broker.serving", listen=self._server.addresses, pid=os.getpid())

    def _serve_metrics(self) -> None:
        self._metrics.observe_leases(self._core.census, asyncio.get_running_loop())
        self._metrics.observe_retained(self._core.retained)
        if self._config.server.metrics:
            host, _, port = self._config.server.metrics.rpartition(":")
            bound = self._metrics.serve(host.strip("[]"), int(port))
            log.info("metrics.listening", address=f"http://{host}:{bound}/metrics")

    def _reload(self) -> None:
        if self._follower is not None:
            self._follower.reload()

    def _listener(self, address: str) -> Listener:
        if address.startswith("unix:"):
            return UnixListener(Path(address.removeprefix("unix:")), LocalUser())
        url = urlsplit(address)
        if self._tokens is None or url.hostname is None or url.port is None:
            raise Unavailable(f"server.listen: {address} needs server.tokens")
        server = self._config.server
        tls = Tls(server.tls_cert, server.tls_key) if server.tls_cert and server.tls_key else None
        return TcpListener(url.hostname, url.port, self._tokens, tls)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _store(config: Config, folder: StateFolder) -> Store:
    if config.store.kind == "memory":
        return MemoryStore(MemoryDatabase())
    return SqlStore(folder.database, ballast=folder.ballast)


def _retention(config: Config) -> Retention:
    store = config.store
    return Retention(
        terminal_age=Seconds(store.terminal_age),
        terminal_count=store.terminal_count,
        terminal_bytes=store.terminal_bytes,
        event_count=store.event_count,
        event_bytes=store.event_bytes,
        request_age=Seconds(store.request_age),
    )


def _bounds(config: Config) -> Bounds:
    local = config.local
    return Bounds(downloads=local.max_downloads, timeout=local.download_timeout, jar_bytes=local.max_jar_bytes)


def _allowance(config: Config) -> Allowance:
    leases = config.leases
    return Allowance(
        live=leases.max_live_per_principal,
        spec_bytes=leases.max_spec_bytes,
        live_spec_bytes=leases.max_live_spec_bytes_per_principal,
        requests=config.store.requests_per_principal,
        logs=config.server.max_logs_per_principal,
        log_rate=config.server.max_log_rate_per_principal,
    )


def _limits(config: Config, files: int) -> Limits:
    server = config.server
    connections = min(server.max_connections, connections_for(files, listeners=max(1, len(server.tcp))))
    if server.tcp and connections < server.max_connections:
        log.warning(
            "server.fewer_connections",
            max_connections=connections,
            configured=server.max_connections,
            hint=f"this process may open {files} files; raise its limit (ulimit -Hn)",
        )
    return Limits(
        message_bytes=server.max_message_bytes,
        concurrent_rpcs=server.max_concurrent_rpcs,
        streams_per_connection=server.max_concurrent_streams,
        streams_per_principal=server.max_watches_per_principal,
        stream_seconds=server.max_stream_age,
        calls_per_principal=server.max_calls_per_principal,
        answer_bytes_per_principal=server.max_answers_per_principal,
        anonymous_calls=server.max_anonymous_calls,
        connections=connections,
        connections_per_principal=server.max_connections_per_principal,
        unauthenticated_connections=min(server.max_unauthenticated_connections, connections),
        unauthenticated_seconds=server.unauthenticated_timeout,
        cancelled_per_connection=server.max_cancelled_per_connection,
        request_seconds=server.request_timeout,
        answer_seconds=server.answer_timeout,
        page_bytes=server.max_page_bytes,
    )


@contextmanager
def _signals(handlers: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


@contextmanager
def _end_of(descriptor: int | None, tell: Callable[[], object]) -> Iterator[None]:
    """Tell when the other end of a pipe is closed, however its process ended. Nothing is ever written to it."""
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, tell)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
