"""What the broker knows of one driver beyond its pods, and how it finds out: by calling it, and by asking for events."""

import asyncio
from collections.abc import Iterable
from typing import Final

from sparkbroker.broker.adapters import spark_connect
from sparkbroker.broker.adapters.kubernetes_provisioner._cluster import Cluster
from sparkbroker.broker.adapters.kubernetes_provisioner._conf import CONNECT_PORT
from sparkbroker.broker.adapters.kubernetes_provisioner._errors import ApiFailed
from sparkbroker.broker.adapters.kubernetes_provisioner._pods import ContainerState, Pod
from sparkbroker.broker.adapters.kubernetes_provisioner._reasons import Hindrance, hindrance, hindrance_by_events
from sparkbroker.broker.domain.lease.plan import STOP_GRACE
from sparkbroker.broker.domain.pods.settings import DRIVER_CONTAINER, EXECUTOR_CONTAINER
from sparkbroker.broker.domain.units import DriverId, WallTime
from sparkbroker.broker.ports.clock import Clock

USER_ID: Final = "sparkbroker"
PORT_TIMEOUT: Final = 1.0
PROBE_TIMEOUT: Final = 5.0
PROBE_PAUSE: Final = 0.1
EVENTS_AFTER: Final = 3.0
"""Seconds without progress after which events are asked for, and between two such questions."""
BELIEVED_AFTER: Final = 15.0
"""Seconds for which a hindrance that looks hopeless may still be cured: a Secret made at the same time, for example."""
UNREACHED_AFTER: Final = 20.0
ASK_AGAIN: Final = 20.0
"""Seconds after which pods that were told to end are told again."""
IDLE_LOOK: Final = 2.0
"""Seconds after which a change is looked for that nobody has told of."""


class KnownDriver:
    """Not safe across threads. ``changed`` is set whenever its pods have changed."""

    def __init__(self, driver_id: DriverId, token: str) -> None:
        self.id = driver_id
        self.token = token
        self.namespace = ""
        self.ip = ""
        self.port_open: WallTime | None = None
        self.ready: WallTime | None = None
        self.trouble = ""
        self.told: Hindrance | None = None
        """What events told."""
        self.hopeless_since: float | None = None
        self.given_up = False
        self.wanted: int | None = None
        """How many executors it is to have at least; None: that isn't on record."""
        self.refused = ""
        """What keeps Spark from making executors that are wanted; empty: none is missing, or nobody knows."""
        self.client = False
        """Its driver is its holder's own pod."""
        self.revoked = False
        """The account of its lease is known to be gone."""
        self.asked = False
        """To end."""
        self.forced = False
        self.secret_gone = False
        self._taken_first: float | None = None
        self._taken_at = float("-inf")
        self._taken_for: frozenset[str] = frozenset()
        """The pods, by uid, that the API server has last taken the request to end for, and when."""
        self.log_saved = False
        self.log_tail: tuple[str, ...] = ()
        self.logs_saved: set[str] = set()
        """Names of executors' pods."""
        self.changed = asyncio.Event()
        self._events_at = float("-inf")

    def __repr__(self) -> str:
        return f"<KnownDriver {self.id} {'ready' if self.ready is not None else 'not ready'}>"

    @staticmethod
    def address(ip: str, port: int) -> str:
        """host:port, as URLs and gRPC write it."""
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def server(self) -> spark_connect.Server:
        """How its Connect server is called."""
        headers = {"authorization": f"Bearer {self.token}"}
        return spark_connect.Server(target=self.address(self.ip, CONNECT_PORT), headers=headers, user_id=USER_ID)

    async def call(self, pod: Pod, clock: Clock, running_for: float) -> bool:
        """Call the running driver once; whether something new is known."""
        self.ip = pod.status.pod_ip
        if self.port_open is None:
            if not await spark_connect.speaks_http2(self.ip, CONNECT_PORT, PORT_TIMEOUT):
                if running_for > UNREACHED_AFTER:
                    where = self.address(self.ip, CONNECT_PORT)
                    self.trouble = f"its port {where} doesn't answer: it starts, or the broker can't reach pods"
                return False
            self.port_open = clock.wall()
            return True
        try:
            await spark_connect.probe(self.server(), PROBE_TIMEOUT)
        except spark_connect.ConnectCallFailed as error:
            self.trouble = f"a Connect call with its token fails: {error}"
            return False
        self.trouble, self.ready = "", clock.wall()
        return True

    async def until_changed(self) -> None:
        """Its pods have changed, or some seconds have passed."""
        try:
            async with asyncio.timeout(IDLE_LOOK):
                await self.changed.wait()
        except TimeoutError:
            pass

    async def ask_events(self, cluster: Cluster, pod: Pod, now: float) -> bool:
        """Learn why a pod that has a node doesn't start, at most every some seconds. Whether something new is known."""
        if now - self._events_at < EVENTS_AFTER:
            return False
        self._events_at = now
        try:
            found = hindrance_by_events(await cluster.events(pod.metadata.namespace, pod.metadata.uid))
        except ApiFailed:
            return False  # a hint that isn't given: what its status says goes on being told
        before, self.told = self.told, found
        return self.told != before

    def taken(self, pods: Iterable[Pod], now: float, *, force: bool) -> None:
        """The API server has taken the request that all of it ends, these pods among it."""
        self.forced = self.forced or force
        self.secret_gone = True
        self._taken_first = now if self._taken_first is None else self._taken_first
        self._taken_at, self._taken_for = now, frozenset(pod.metadata.uid for pod in pods)

    def is_taken(self, pods: Iterable[Pod], now: float, *, force: bool) -> bool:
        """Whether it has, not long ago, with no less force, and for all of these: watches may tell of it later."""
        if now - self._taken_at >= ASK_AGAIN or (force and not self.forced):
            return False
        return all(pod.leaving or pod.metadata.uid in self._taken_for for pod in pods)

    def has_had_grace(self, now: float) -> bool:
        """Whether force is due. The time of a driver's end begins when the API server has taken the request: before that the
        broker itself may have waited for its turn."""
        return self._taken_first is None or now - self._taken_first >= STOP_GRACE

    def hopeless(self, pod: Pod, now: float) -> str:
        """Why waiting for it is of no use, once that has been so for a while; empty: it may still come."""
        found = hindrance(pod) or self.told
        if found is None or not found.hopeless:
            self.hopeless_since = None
            return ""
        if self.hopeless_since is None:
            self.hopeless_since = now
        return found.message if now - self.hopeless_since >= BELIEVED_AFTER else ""


def is_running(pod: Pod) -> bool:
    """Whether the driver itself runs, and can be called."""
    main = pod.container(DRIVER_CONTAINER)
    return main is not None and main.running is not None and bool(pod.status.pod_ip) and not pod.leaving


def has_begun(pod: Pod) -> bool:
    """Whether there is a log of its Spark container."""
    main = _main(pod)
    return main is not None and (main.running is not None or main.terminated is not None)


def has_ended(pod: Pod) -> bool:
    """Whether its Spark container has ended, also where its pod hasn't yet: a sidecar may go on."""
    main = _main(pod)
    return main is not None and main.terminated is not None


def _main(pod: Pod) -> ContainerState | None:
    if pod.is_holder:
        return None  # whatever runs in it is not ours to read
    return pod.container(DRIVER_CONTAINER if pod.is_driver else EXECUTOR_CONTAINER)
