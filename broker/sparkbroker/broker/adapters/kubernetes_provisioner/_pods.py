"""A pod as the API server tells it, in the few fields that are read. Decoded straight from JSON; the rest is dropped.

Its annotations may be anybody's words: the broker's own, in a holder's pod, can be changed by whoever made that. They are read
in the form in which they were written, and what has another form says nothing.
"""

import re
from datetime import datetime
from typing import Any, Final

import msgspec

from sparkbroker.broker.adapters.kubernetes_provisioner._names import (
    DRIVER,
    EXECUTORS,
    FINGERPRINT,
    HOLDER,
    POOL,
    PRINCIPAL,
    PYTHON,
    ROLE,
)
from sparkbroker.broker.domain.asking.pod_sizing import Role
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pods.quantities import pod_request
from sparkbroker.broker.domain.units import DriverId

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_COUNT: Final = re.compile(r"[0-9]{1,5}")
_VERSION: Final = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    pass


class Metadata(_Camel, frozen=True, kw_only=True):
    """Of any object. ``deletion_timestamp``: it is being deleted, which nothing takes back."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Quantities(_Camel, frozen=True, kw_only=True):
    """Of one container, in Kubernetes' notation."""

    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}


class Container(_Camel, frozen=True, kw_only=True):
    """How large one is; ``restart_policy`` Always is an init container that goes on running."""

    name: str = ""
    resources: Quantities = Quantities()
    restart_policy: str = ""


class Spec(_Camel, frozen=True, kw_only=True):
    """What it runs on and takes."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    resources: Quantities = Quantities()
    """Of the pod as a whole."""
    overhead: dict[str, Any] = {}


class Waiting(_Camel, frozen=True, kw_only=True):
    """Of a container that doesn't run yet."""

    reason: str = ""
    message: str = ""


class Running(_Camel, frozen=True, kw_only=True):
    """Of a container that runs."""

    started_at: datetime | None = None


class Terminated(_Camel, frozen=True, kw_only=True):
    """Of a container that has ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class ContainerState(_Camel, frozen=True, kw_only=True):
    """One of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Camel, frozen=True, kw_only=True):
    """Of one container."""

    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class Condition(_Camel, frozen=True, kw_only=True):
    """Of a pod: ``PodScheduled``, ``Ready``, ``DisruptionTarget``, …"""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: datetime | None = None


class Status(_Camel, frozen=True, kw_only=True):
    """What its kubelet and the scheduler say."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_Camel, frozen=True, kw_only=True):
    """See the module."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def driver_id(self) -> DriverId:
        return DriverId(self.metadata.labels.get(DRIVER, ""))

    @property
    def is_driver(self) -> bool:
        return self.metadata.labels.get(ROLE) == Role.DRIVER

    @property
    def is_holder(self) -> bool:
        """A driver that is its holder's own pod, and not ours to delete."""
        return self.is_driver and HOLDER in self.metadata.labels

    @property
    def principal(self) -> str:
        """Who may use it as a driver, as whoever made it says; empty: nobody."""
        return self.metadata.annotations.get(PRINCIPAL, "")

    @property
    def fingerprint(self) -> str:
        return self._annotation(FINGERPRINT, _WORD)

    @property
    def pool(self) -> str:
        return self._annotation(POOL, _WORD)

    @property
    def wanted(self) -> int | None:
        """How many executors it is to have at least; None: that isn't written."""
        text = self._annotation(EXECUTORS, _COUNT)
        return int(text) if text else None

    @property
    def python_version(self) -> str:
        return self._annotation(PYTHON, _VERSION)

    def _annotation(self, key: str, form: re.Pattern[str]) -> str:
        text = self.metadata.annotations.get(key, "")
        return text if form.fullmatch(text) else ""

    @property
    def takes(self) -> Resources:
        """What it takes of its node now: nothing once its containers have ended."""
        if self.ended:
            return Resources()
        try:
            return pod_request(msgspec.to_builtins(self.spec))
        except InvalidField:
            return Resources()  # not of the API server's making

    @property
    def leaving(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def ended(self) -> bool:
        """Whether all of its containers have, for good."""
        return self.status.phase in ("Succeeded", "Failed")

    def condition(self, type: str) -> Condition | None:
        return next((condition for condition in self.status.conditions if condition.type == type), None)

    def container(self, name: str) -> ContainerState | None:
        """The state of one container; None: its kubelet has said nothing of it."""
        return next((status.state for status in self.status.container_statuses if status.name == name), None)


class ListMetadata(_Camel, frozen=True, kw_only=True):
    """Of a list: where a watch begins, and the next page."""

    resource_version: str = ""
    continue_token: str = msgspec.field(default="", name="continue")


class PodList(_Camel, frozen=True, kw_only=True):
    """An answer to a list."""

    metadata: ListMetadata = ListMetadata()
    items: tuple[Pod, ...] = ()


class WatchEvent(_Camel, frozen=True, kw_only=True):
    """One line of a watch. ``object`` is a Pod, or a Status if ``type`` is ERROR."""

    type: str
    object: msgspec.Raw = msgspec.Raw(b"{}")


class Bookmark(_Camel, frozen=True, kw_only=True):
    """The object of an event that only tells a version: a Pod in name alone, with null where a pod has lists."""

    metadata: Metadata


class ApiStatus(_Camel, frozen=True, kw_only=True):
    """What the API server says of a failure."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Event(_Camel, frozen=True, kw_only=True):
    """What a component says of an object."""

    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None


class EventList(_Camel, frozen=True, kw_only=True):
    """An answer to a list."""

    items: tuple[Event, ...] = ()


class TokenStatus(_Camel, frozen=True, kw_only=True):
    """A credential that was made."""

    token: str
    expiration_timestamp: datetime


class TokenRequest(_Camel, frozen=True, kw_only=True):
    """An answer to a request for one."""

    status: TokenStatus


class PartialObject(_Camel, frozen=True, kw_only=True):
    """Any object, of which only its metadata is read."""

    metadata: Metadata = Metadata()


class PartialList(_Camel, frozen=True, kw_only=True):
    """An answer to a list of such."""

    metadata: ListMetadata = ListMetadata()
    items: tuple[PartialObject, ...] = ()


POD: Final = msgspec.json.Decoder(Pod)
PODS: Final = msgspec.json.Decoder(PodList)
WATCH_EVENT: Final = msgspec.json.Decoder(WatchEvent)
BOOKMARK: Final = msgspec.json.Decoder(Bookmark)
API_STATUS: Final = msgspec.json.Decoder(ApiStatus)
EVENTS: Final = msgspec.json.Decoder(EventList)
TOKEN: Final = msgspec.json.Decoder(TokenRequest)
PARTIAL: Final = msgspec.json.Decoder(PartialList)
