"""What the exit status of ``sparkbroker`` says."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
REFUSED: Final = 4
TIMEOUT: Final = 5
LEASE_LOST: Final = 6
CANNOT_EXECUTE: Final = 126
COMMAND_NOT_FOUND: Final = 127
SIGNAL_BASE: Final = 128

EXIT_CODES: Final[dict[str, str]] = {
    "0": "it worked",
    "1": "it failed: the configuration or the store can't be used, doctor found something missing, the lease failed",
    "2": "wrong usage",
    "3": "the broker can't be reached",
    "4": "the broker refused: invalid, not found, not allowed, too many, or it could never fit",
    "5": "a time limit passed while waiting",
    "6": "run: the lease was lost while the command ran",
    "126": "run: the command can't be executed",
    "127": "run: there is no such command",
    "128+n": "ended by signal n (of run: the command was)",
}
"""Of ``run``, every other status is the command's own."""

EPILOG: Final = "Exit codes: " + "; ".join(f"{code}: {text}" for code, text in EXIT_CODES.items()) + "."


class Exit(Exception):
    """End the program with this status, after telling ``message`` on stderr."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
