"""Every error as one message on stderr and an exit status."""

import sys
import traceback

from sparkbroker.broker.cli.exit_codes import FAILED, LEASE_LOST, REFUSED, TIMEOUT, UNREACHABLE, USAGE, Exit


def report(error: Exception) -> int:
    """Tell the error, and return the exit status that says its kind. A bug is told with its traceback."""
    if isinstance(error, Exit):
        if error.message:
            _tell(error.message)
        return error.code
    # Who has raised an error of these has imported them already; nobody else pays for it.
    if "sparkbroker.client._errors" in sys.modules:
        code = _client_code(error)
        if code is not None:
            _tell(str(error))
            return code
    if "sparkbroker.broker.domain.errors" in sys.modules:
        from sparkbroker.broker.domain.errors import BrokerError

        if isinstance(error, BrokerError):
            _tell(error.message)
            return FAILED
    traceback.print_exception(error)
    return FAILED


def _client_code(error: Exception) -> int | None:
    from sparkbroker.client import _errors as client

    match error:
        case client.BadAddress():
            return USAGE
        case client.BrokerUnreachable() | client.ClientClosed():
            return UNREACHABLE
        case client.AcquireTimeout():
            return TIMEOUT
        case client.LeaseLost():
            return LEASE_LOST
        case client.AcquireFailed() | client.BrokerFault():
            return FAILED
        case client.SparkbrokerError():
            return REFUSED
        case _:
            return None


def _tell(message: str) -> None:
    print(f"sparkbroker: {message}", file=sys.stderr)
