"""Who calls over a unix socket that only the broker's own user can reach."""

import os
import pwd
from collections.abc import Mapping

from sparkbroker.broker.domain.text import escaped
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.ports.authenticator import Caller, Role


class LocalUser:
    """Every caller is the OS user who runs the broker, with both roles: the socket's folder (0700) is the credential.

    Not promised: anything about who can reach the socket. ``rpc.listeners`` refuses a folder that others can enter.
    """

    def __init__(self, name: str | None = None) -> None:
        self._caller = Caller(Principal(name or _user_name()), frozenset({Role.USER, Role.OPERATOR}))

    @property
    def changes(self) -> int:
        return 0

    @property
    def principal(self) -> Principal:
        return self._caller.principal

    def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        return self._caller


def _user_name() -> str:
    uid = os.getuid()
    try:
        return escaped(pwd.getpwuid(uid).pw_name)
    except KeyError:  # A container's random uid has no name.
        return f"uid-{uid}"
