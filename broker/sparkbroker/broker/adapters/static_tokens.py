"""Bearer tokens from a file that the operator writes; the file holds only their hashes.

    [[token]]
    principal = "ann"
    roles = ["user"]
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

Why plain SHA-256 and not a slow password hash: the tokens are 32 random bytes that ``new_token`` makes, so there is
nothing to guess from a hash (2^256), and every call is checked, which a slow hash would make a denial of service. A
token that a person chose must not be put here.
"""

import os
import re
import secrets
import stat
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from sparkbroker.broker.domain.errors import BrokerError, Unauthenticated
from sparkbroker.broker.domain.units import Principal
from sparkbroker.broker.file_changes import FollowedFiles
from sparkbroker.broker.ports.authenticator import Caller, Role
from sparkbroker.client.file_text import NotText, decode

TOKEN_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1 << 20
_SCHEME: Final = "bearer "
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_KEYS: Final = frozenset({"principal", "roles", "sha256"})
_EXPECTED: Final = 'send the metadata "authorization: Bearer TOKEN"'


class TokenFileInvalid(BrokerError):
    """The token file can't be used. Says which file, which entry, what is wrong and what would be right."""

    reason = "TOKEN_FILE_INVALID"


def _any(_users: Collection[Principal]) -> None:
    """Whoever they are."""


class StaticTokens:
    """Authenticates by the ``authorization`` metadata. Raise TokenFileInvalid if the file can't be used.

    ``accept`` is given the principals with the role ``user`` whenever the file was read, before its tokens are in force,
    and may raise: then they don't come into force.

    A token is looked up by its hash: what an attacker can time is a comparison of hashes, which tells nothing about a
    token. The hash is never stored beside the token, and neither is ever in a message.
    """

    def __init__(self, path: Path, accept: Callable[[Collection[Principal]], None] = _any) -> None:
        self.path = path
        self.file = FollowedFiles(path)
        self._accept = accept
        self.changes = 0
        """How often the file has been read anew."""
        self._callers = self.file.read(self._read)

    def __repr__(self) -> str:
        return f"<StaticTokens {self.path} [{len(self._callers)} tokens]>"

    def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        header = metadata.get("authorization")
        if header is None:
            raise Unauthenticated(f"the call carries no token; {_EXPECTED}")
        if not isinstance(header, str) or header[:7].lower() != _SCHEME:
            raise Unauthenticated(f"the authorization metadata is not a bearer token; {_EXPECTED}")
        caller = self._callers.get(sha256(header[7:].strip().encode()).digest())
        if caller is None:
            raise Unauthenticated("the token is not known to this broker; ask its operator for a new one")
        return caller

    def reload(self) -> int:
        """Read the file again and return how many tokens it has. If it can't be used, raise, and keep what was."""
        self._callers = self.file.read(self._read)
        self.changes += 1
        return len(self._callers)

    def _read(self) -> dict[bytes, Caller]:
        callers = load(self.path)
        self._accept({caller.principal for caller in callers.values() if Role.USER in caller.roles})
        return callers


def load(path: Path) -> dict[bytes, Caller]:
    """The callers by the SHA-256 of their tokens. Raise TokenFileInvalid."""
    try:
        entries = tomllib.loads(_read_private(path))
    except (ValueError, RecursionError) as error:  # the parser's own errors, and those that it lets through
        raise TokenFileInvalid(f"token file {path} is not valid TOML: {error}") from error
    unknown = entries.keys() - {"token"}
    if unknown:
        raise TokenFileInvalid(f"token file {path}: unknown {sorted(unknown)}; only [[token]] entries belong there")
    tokens = entries.get("token", [])
    if not isinstance(tokens, list) or not all(isinstance(entry, dict) for entry in tokens):
        raise TokenFileInvalid(f"token file {path}: token must be written as [[token]] entries")
    callers: dict[bytes, Caller] = {}
    for number, entry in enumerate(tokens, 1):
        where = f"token file {path}, entry {number}"
        digest, caller = _entry(entry, where)
        if digest in callers:
            raise TokenFileInvalid(f"{where}: this sha256 stands there twice; give each principal a token of its own")
        callers[digest] = caller
    return callers


def _read_private(path: Path) -> str:
    """The file's text, from the very file whose permissions were checked."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TokenFileInvalid(f"token file {path} is not a regular file")
            if status.st_mode & 0o027:
                mode = stat.S_IMODE(status.st_mode)
                raise TokenFileInvalid(
                    f"token file {path} has mode {mode:04o}: others can read it or its group can change it; "
                    f"chmod 600 (or 640) {path}"
                )
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenFileInvalid(f"token file {path} can't be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise TokenFileInvalid(f"token file {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return decode(content)
    except NotText as error:
        raise TokenFileInvalid(f"token file {path} {error}; save it as UTF-8") from error


def _entry(entry: dict[str, object], where: str) -> tuple[bytes, Caller]:
    unknown = entry.keys() - _KEYS
    if unknown:
        raise TokenFileInvalid(f"{where}: unknown {sorted(unknown)}; it has principal, roles and sha256")
    principal = entry.get("principal")
    if not isinstance(principal, str) or not _PRINCIPAL.fullmatch(principal):
        raise TokenFileInvalid(
            f"{where}: principal must be a name of letters, digits and . _ @ + -, at most 128 characters"
        )
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest.lower()):
        raise TokenFileInvalid(
            f"{where} ({principal}): sha256 must be the 64 hexadecimal digits of the token's SHA-256"
        )
    roles = entry.get("roles", [Role.USER.value])
    known = [role.value for role in Role]
    if not isinstance(roles, list) or not roles or not all(role in known for role in roles):
        raise TokenFileInvalid(f"{where} ({principal}): roles must be a list of {' or '.join(known)}, at least one")
    return bytes.fromhex(digest), Caller(Principal(principal), frozenset(Role(role) for role in roles))


def new_token(principal: str, roles: Iterable[Role] = (Role.USER,)) -> tuple[str, str]:
    """A new random token, to be shown once, and the entry for the token file. Raise TokenFileInvalid for a bad name."""
    if not _PRINCIPAL.fullmatch(principal):
        raise TokenFileInvalid("principal must be a name of letters, digits and . _ @ + -, at most 128 characters")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    names = ", ".join(f'"{role.value}"' for role in sorted(set(roles)))
    digest = sha256(token.encode()).hexdigest()
    return token, f'[[token]]\nprincipal = "{principal}"\nroles = [{names}]\nsha256 = "{digest}"\n'
