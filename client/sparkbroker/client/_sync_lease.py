"""One lease, for blocking programs: AsyncLease through the process's portal."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from sparkbroker.client._async_lease import RELEASE_TIMEOUT, AsyncLease
from sparkbroker.client._current import CURRENT
from sparkbroker.client._error_texts import keep_texts
from sparkbroker.client._errors import LeaseLost, WrongProcess
from sparkbroker.client._lease_info import LeaseInfo
from sparkbroker.client._portal import Portal
from sparkbroker.client._session import open_session
from sparkbroker.client._session_base import OpenSession
from sparkbroker.client._values import Connection, Progress


class Lease:
    """A handle on a lease; see AsyncLease, whose methods these are. ``with`` releases it.

    It belongs to the process that acquired it. A lease that was attached and never released is released when the
    interpreter ends.
    """

    def __init__(self, portal: Portal, lease: AsyncLease) -> None:
        self._portal = portal
        self._lease = lease
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return repr(self._lease).replace("<AsyncLease", "<Lease", 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lease) and other._lease is self._lease

    def __hash__(self) -> int:
        return hash(self._lease)

    @property
    def name(self) -> str:
        """leases/{id}."""
        return self._lease.name

    @property
    def info(self) -> LeaseInfo:
        """The lease as it was last seen; ``refresh`` reads it."""
        return self._lease.info

    @property
    def state(self) -> str:
        """Its state as it was last seen, such as QUEUED or READY."""
        return self._lease.state

    @property
    def live(self) -> bool:
        """It was QUEUED, PROVISIONING or READY when it was last seen."""
        return self._lease.live

    @property
    def attached(self) -> bool:
        """It is renewed in the background, and was not lost."""
        return self._lease.attached

    @property
    def generation(self) -> int:
        """The fencing token of this attachment; 0: not attached."""
        return self._lease.generation

    @property
    def suspect(self) -> str:
        """Why the broker may have ended the lease without our knowing. Empty: nothing speaks for it."""
        return self._lease.suspect

    @property
    def notice(self) -> str:
        """What the broker says will happen to it, such as its max_duration."""
        return self._lease.notice

    @property
    def lost(self) -> LeaseLost | None:
        """How it was lost; None: it was not."""
        return self._lease.lost

    def _own(self) -> Portal:
        if self._pid != os.getpid():
            raise WrongProcess(
                f"{self.name} belongs to process {self._pid}; this forked child needs a lease of its own"
            )
        return self._portal

    def refresh(self) -> LeaseInfo:
        """Read the lease from the broker."""
        return self._own().call(self._lease.refresh())

    def wait_ready(
        self, on_progress: Callable[[Progress], object] | None = None, *, timeout: float | None = None
    ) -> None:
        """Wait until it is READY; ``on_progress`` is called in this thread. Errors as of AsyncLease.progress."""
        changes = self._own().iterate(self._lease.progress(timeout))
        try:
            for progress in changes:
                if on_progress is not None:
                    on_progress(progress)
        finally:
            changes.close()  # type: ignore[attr-defined]

    def attach(self, holder: str = "") -> None:
        """Become the live user of the lease and renew from now on."""
        self._own().call(self._lease.attach(holder))

    def connection(self) -> Connection:
        """How to connect; attaches first where that hasn't happened. The answer is secret."""
        return self._own().call(self._lease.connection())

    def open_session(self, *, api: Literal["classic", "connect"] = "classic", app_name: str = "") -> Any:
        """A Spark session on the lease; it is closed by ``close_session`` or with the lease.

        ``api`` is for LOCAL leases: ``classic`` (with ``sparkContext``) or ``connect``.
        """
        connection = self._own().call(self._lease.session_connection())
        # In this thread, not in the loop's: Spark's "active session" belongs to the thread that made it.
        opened = open_session(connection, api=api, app_name=app_name or self.name)
        try:
            self._own().call(_adopt(self._lease, opened))
        except BaseException:
            opened.close()
            raise
        CURRENT.here(opened)
        return opened.spark

    def close_session(self) -> None:
        """Close the lease's sessions, within seconds also if their server is dead."""
        self._own().call(self._lease.close_session())

    @contextmanager
    def session(self, *, api: Literal["classic", "connect"] = "classic", app_name: str = "") -> Iterator[Any]:
        """``open_session`` and ``close_session``. An error of the body is replaced by LeaseLost if that is its cause."""
        spark = self.open_session(api=api, app_name=app_name)
        try:
            yield spark
        except Exception as error:
            keep_texts(error)
            self.raise_if_lost(error)
            raise
        finally:
            if self._pid == os.getpid():
                self.close_session()

    def raise_if_lost(self, cause: BaseException | None = None) -> None:
        """Ask the broker whether this attachment still lives; raise LeaseLost from ``cause`` if it doesn't."""
        if self._pid == os.getpid():
            self._portal.call(self._lease.raise_if_lost(cause))

    def logs(self, *, offset: int = 0, tail_lines: int = 0, follow: bool = False, attempt: int = 0) -> Iterator[bytes]:
        """The driver's log, in pieces of any size."""
        return self._own().iterate(
            self._lease.logs(offset=offset, tail_lines=tail_lines, follow=follow, attempt=attempt)
        )

    def release(self, message: str = "", *, everyone: bool = False, timeout: float = RELEASE_TIMEOUT) -> bool:
        """Close the sessions and give the lease back. Idempotent; never raises for a broker that is away."""
        return self._own().call(self._lease.release(message, everyone=everyone, timeout=timeout))

    def detach(self) -> None:
        """Close the sessions and renew no more, without giving the lease back; see AsyncLease.detach."""
        self._own().call(self._lease.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid == os.getpid():
            self._portal.call(self._lease.__aexit__(kind, error, trace))


async def _adopt(lease: AsyncLease, session: OpenSession) -> None:
    lease.check()
    lease.adopt_session(session)
