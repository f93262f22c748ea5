"""What the operating system refuses, as the provisioner's own error: it may not end the broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sparkbroker.broker.domain.errors import ProvisionerFailed

_NO_THREAD: Final = "can't start new thread"
"""Python tells by a RuntimeError of this text that the system has refused one."""


@asynccontextmanager
async def refusals_told(what: str) -> AsyncIterator[None]:
    """Raise ProvisionerFailed if the system has no descriptor, process, thread, memory or room left: later it may have."""
    try:
        yield
    except OSError as error:
        raise ProvisionerFailed(f"{what}: {error.strerror or error}", retryable=True) from error
    except RuntimeError as error:
        if _NO_THREAD not in str(error):
            raise
        raise ProvisionerFailed(f"{what}: no thread can be started", retryable=True) from error
