"""Who calls."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from sparkbroker.broker.domain.units import Principal


class Role(StrEnum):
    """``operator`` sees and releases everyone's leases."""

    USER = "user"
    OPERATOR = "operator"


class Caller(msgspec.Struct, frozen=True):
    """An authenticated principal and its roles."""

    principal: Principal
    roles: frozenset[Role] = frozenset({Role.USER})

    @property
    def operator(self) -> bool:
        return Role.OPERATOR in self.roles


class Authenticator(Protocol):
    """Decides from a call's metadata; cheap, and without I/O."""

    @property
    def changes(self) -> int:
        """How often its answers may have changed so far."""
        ...

    def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """Raise Unauthenticated, saying what was missing or wrong without repeating it."""
        ...
