"""The whole file as one frozen value."""

from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, field_validator

from sparkbroker.broker.config.fields import Name
from sparkbroker.broker.config.profiles import Profile
from sparkbroker.broker.config.sections import Kubernetes, Leases, Local, Pool, Queue, Section, Server, Store

DEFAULT = "default"
LOCAL_POOL = "local"


class Config(Section):
    """The configuration, complete and consistent: ``load_config`` makes it."""

    shared_trust: bool = False
    """Several principals may use local drivers, though code in one can read what another's knows."""
    server: Server = Server()
    store: Store
    leases: Leases = Leases()
    kubernetes: Kubernetes = Kubernetes()
    local: Local = Local()
    capacity: dict[Name, Pool] = Field(default={}, max_length=1_000)
    queues: dict[Name, Queue] = Field(default={}, max_length=10_000, validate_default=True)
    """Default: one, ``default``, with everything."""
    profiles: dict[Name, Profile] = Field(default={}, max_length=10_000, validate_default=True)
    """Default: one, ``default``, local."""

    _source: str = PrivateAttr(default="")

    @field_validator("queues")
    @classmethod
    def _some_queue(cls, value: dict[str, Queue]) -> dict[str, Queue]:
        return value or {DEFAULT: Queue()}

    @field_validator("profiles")
    @classmethod
    def _some_profile(cls, value: dict[str, Profile]) -> dict[str, Profile]:
        return value or {DEFAULT: Profile()}

    def from_source(self, source: str) -> Self:
        """The same, saying where it was read."""
        copy = self.model_copy()
        copy._source = source  # noqa: SLF001 (a copy of this class)
        return copy

    @property
    def source(self) -> str:
        """The file's path, or ``built-in defaults``."""
        return self._source

    @property
    def listen(self) -> tuple[str, ...]:
        """The addresses, the default filled in."""
        return self.server.listen or (f"unix:{self.socket}",)

    @property
    def socket(self) -> Path:
        """The default unix socket."""
        return self.store.state_folder / "run" / "broker.sock"

    @property
    def default_profile(self) -> str:
        """The profile of a request that names none; empty: it has to name one."""
        return _default(self.leases.default_profile, list(self.profiles))

    @property
    def default_queue(self) -> str:
        """The queue of a request whose profile names none; empty: it has to name one."""
        return _default(self.leases.default_queue, list(self.queues))

    def profile_queue(self, name: str) -> str:
        """The queue of a request that names only this profile."""
        queues = self.profiles[name].queues
        if not queues or self.default_queue in queues:
            return self.default_queue
        return queues[0]


def _default(named: str | None, known: list[str]) -> str:
    if named is not None:
        return named
    if DEFAULT in known:
        return DEFAULT
    return known[0] if len(known) == 1 else ""
