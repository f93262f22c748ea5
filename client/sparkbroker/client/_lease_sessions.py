"""The Spark sessions that this process has on one lease."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Literal

from sparkbroker.client._blocking import in_thread
from sparkbroker.client._clock import utc
from sparkbroker.client._current import CURRENT
from sparkbroker.client._errors import SessionConflict, SparkbrokerError
from sparkbroker.client._session_base import OpenSession
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._values import Connection

_log = logging.getLogger("sparkbroker.client")
SOONEST: Final = 30.0
"""Seconds between two requests for a credential, also where the last one failed."""


class LeaseSessions:
    """At most one of them is open at a time."""

    def __init__(
        self,
        tasks: Tasks,
        *,
        lease: Callable[[], str],
        check: Callable[[], None],
        explain: Callable[[BaseException], None],
        connection: Callable[[], Awaitable[Connection]],
    ) -> None:
        self._connection = connection
        self._renewal: asyncio.Task[None] | None = None
        self._tasks = tasks
        self._lease = lease
        self._check = check
        self._explain = explain
        self._sessions: list[OpenSession] = []
        self.id_used = False
        """The attachment's session id is used up: Spark accepts it for one session only."""

    def __repr__(self) -> str:
        return f"<LeaseSessions [{sum(session.open for session in self._sessions)} open]>"

    async def make_room(self) -> None:
        """Close what has ended by itself; raise SessionConflict if one is open."""
        for session in self._sessions:
            if session.open and not session.ended:
                await in_thread(session.look, "look")
        if any(session.open and not session.ended for session in self._sessions):
            raise SessionConflict(f"{self._lease()} has an open session; use its newSession(), or a shared lease")
        await self.close()

    async def open(self, connection: Connection, *, api: Literal["classic", "connect"], app_name: str) -> OpenSession:
        """Open one in a thread; if cancelled meanwhile it is closed again."""
        from sparkbroker.client import _session  # noqa: PLC0415  only who opens a session pays for it

        opened = await in_thread(
            lambda: _session.open_session(connection, api=api, app_name=app_name),
            "open-session",
            undo=lambda session: session.close(),
        )
        self.adopt(opened)
        CURRENT.here(opened)
        return opened

    def adopt(self, session: OpenSession) -> None:
        """Close this one with the lease, interrupt it when the lease is lost, and explain its errors."""
        self._sessions = [*self._sessions, session]
        self.id_used = session.uses_session_id
        session.explain_errors(self._explain)
        CURRENT.enter(self._lease(), session, self._check)
        self._stop_renewing()
        if session.expires is not None:
            self._renewal = self._tasks.start(self._renew(session), "credential")

    async def _renew(self, session: OpenSession) -> None:
        """Get its credential anew in the middle of what is left of it."""
        while session.open and session.expires is not None:
            await asyncio.sleep(renewal_pause(session.expires, utc()))
            try:
                connection = await self._connection()
                await in_thread(lambda: session.renew(connection), "credential")  # noqa: B023  awaited at once
            except (SparkbrokerError, OSError) as error:
                _log.warning("sparkbroker: the session's credential could not be renewed yet: %s", error)

    def _stop_renewing(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    async def close(self) -> None:
        """Close them, within seconds also if their server is dead, and also if the caller is cancelled."""
        self._stop_renewing()
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            CURRENT.leave(session)
        if sessions:
            await self._tasks.finish(in_thread(lambda: _close(sessions), "close"), "close")

    async def abort(self, reason: str) -> None:
        """Their lease is lost: interrupt and end them."""
        self._stop_renewing()
        sessions = list(self._sessions)
        if sessions:
            await in_thread(lambda: _abort(sessions, reason), "abort-session")


def renewal_pause(expires: datetime, now: datetime) -> float:
    """Seconds until a credential that ends then (UTC, without a zone) is renewed: half of what is left of it."""
    return max(SOONEST, (expires.replace(tzinfo=UTC) - now).total_seconds() / 2)


def _close(sessions: list[OpenSession]) -> None:
    for session in sessions:
        session.close()


def _abort(sessions: list[OpenSession], reason: str) -> None:
    for session in sessions:
        session.abort(reason)
