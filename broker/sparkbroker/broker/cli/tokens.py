"""Makes tokens and keeps the token file private."""

import os
from pathlib import Path

from sparkbroker.broker.adapters.static_tokens import load, new_token
from sparkbroker.broker.cli.exit_codes import FAILED, Exit
from sparkbroker.broker.ports.authenticator import Role


def make(principal: str, *, operator: bool) -> tuple[str, str]:
    """The token, and its entry. Raise TokenFileInvalid for a bad name."""
    roles = (Role.USER, Role.OPERATOR) if operator else (Role.USER,)
    return new_token(principal, roles)


def append(path: Path, entry: str) -> None:
    """Add the entry to a token file that can be used; a new file is readable by its owner only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            load(path)
            file.write(f"\n{entry}" if file.tell() else entry)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Exit(FAILED, f"token file {path} can't be written: {error.strerror}") from error
