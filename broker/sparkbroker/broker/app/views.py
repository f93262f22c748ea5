"""What the use cases take and give: values for ``rpc`` to convert, and for the CLI's embedded broker."""

from enum import StrEnum

import msgspec

from sparkbroker.broker.domain.admission.cycle import Progress
from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.capacity.resources import Resources
from sparkbroker.broker.domain.lease.event import LeaseEvent
from sparkbroker.broker.domain.lease.lease import Attachment, Lease, LeaseState
from sparkbroker.broker.domain.lease.observation import Executors
from sparkbroker.broker.domain.units import Revision, Seconds
from sparkbroker.broker.ports.provisioner import ClientAccess, ConnectEndpoint


class OnExisting(StrEnum):
    """What ``acquire`` does when the key has a live lease; names are those of the API."""

    FAIL = "FAIL"
    REATTACH = "REATTACH"
    REPLACE = "REPLACE"


class LeaseView(msgspec.Struct, frozen=True, gc=False):
    """A lease as read; ``progress`` while it is QUEUED, ``executors`` while it is READY, as last seen; ``spec`` and charge
    are in the lease."""

    lease: Lease
    progress: Progress | None = None
    executors: Executors | None = None


class Acquired(msgspec.Struct, frozen=True, gc=False):
    """Result of ``acquire``."""

    view: LeaseView
    existing: bool


class Attached(msgspec.Struct, frozen=True, gc=False):
    """Result of ``attach``."""

    view: LeaseView
    attachment: Attachment
    ttl: Seconds


class Forced(msgspec.Struct, frozen=True, gc=False):
    """Result of ``force_release``; ``done`` says for people what was done."""

    view: LeaseView
    done: str


class Renewed(msgspec.Struct, frozen=True, gc=False):
    """Result of ``renew``."""

    state: LeaseState
    ttl: Seconds
    notice: str


class LocalSession(msgspec.Struct, frozen=True):
    """What a LOCAL session is to be built with."""

    master: str
    conf: dict[str, str]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Result of ``connection``: one of the three. ``session_id`` is the attachment's."""

    connect: ConnectEndpoint | None = None
    local: LocalSession | None = None
    client: ClientAccess | None = None
    session_id: str = ""
    python_version: str = ""
    spark_version: str = ""


class LeasePage(msgspec.Struct, frozen=True):
    """Result of ``list``: ``next_after`` is the last lease's sort key if there are more."""

    views: list[LeaseView]
    next_after: tuple[float, str] | None
    revision: Revision


class WatchUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message of a watch; exactly one of the first three, or none (only the revision)."""

    snapshot: LeaseView | None = None
    event: LeaseEvent | None = None
    progress: Progress | None = None
    revision: Revision


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue with what it holds."""

    name: str
    nominal: Resources
    used: Resources
    queued: int
    admitted: int
    priority_step: Seconds
    priorities: tuple[int, int]
    """The lowest and the highest that the caller may ask for."""
    blocking_message: str


class ProfileView(msgspec.Struct, frozen=True):
    """A profile and, if it can't be used now, why."""

    profile: Profile
    unusable: str
