"""The Spark sessions that this process has on one lease."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from sparkbroker.client._blocking import in_thread
from sparkbroker.client._errors import SessionConflict
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._values import Connection

if TYPE_CHECKING:
    from sparkbroker.client._session import OpenSession


class LeaseSessions:
    """At most one of them is open at a time."""

    def __init__(self, tasks: Tasks, explain: Callable[[BaseException], None]) -> None:
        self._tasks = tasks
        self._explain = explain
        self._sessions: list[OpenSession] = []
        self.id_used = False
        """The attachment's session id is used up: Spark accepts it for one session only."""

    def __repr__(self) -> str:
        return f"<LeaseSessions [{sum(session.open for session in self._sessions)} open]>"

    def check_free(self, lease: str) -> None:
        """Raise SessionConflict if one is open."""
        if any(session.open for session in self._sessions):
            raise SessionConflict(f"{lease} has an open session; use its newSession(), or a shared lease")

    async def open(self, connection: Connection, *, api: Literal["classic", "connect"], app_name: str) -> "OpenSession":
        """Open one in a thread; if cancelled meanwhile it is closed again."""
        from sparkbroker.client import _session  # noqa: PLC0415  only who opens a session pays for it

        opened = await in_thread(
            lambda: _session.open_session(connection, api=api, app_name=app_name),
            "open-session",
            undo=lambda session: session.close(),
        )
        self.adopt(opened)
        return opened

    def adopt(self, session: "OpenSession") -> None:
        """Close this one with the lease, interrupt it when the lease is lost, and explain its errors."""
        self._sessions = [known for known in self._sessions if known.open] + [session]
        self.id_used = session.uses_session_id
        session.explain_errors(self._explain)

    async def close(self) -> None:
        """Close them, within seconds also if their server is dead, and also if the caller is cancelled."""
        sessions, self._sessions = self._sessions, []
        if sessions:
            await self._tasks.finish(in_thread(lambda: _close(sessions), "close"), "close")

    async def abort(self, reason: str) -> None:
        """Their lease is lost: interrupt and end them."""
        sessions = list(self._sessions)
        if sessions:
            await in_thread(lambda: _abort(sessions, reason), "abort-session")


def _close(sessions: "list[OpenSession]") -> None:
    for session in sessions:
        session.close()


def _abort(sessions: "list[OpenSession]", reason: str) -> None:
    for session in sessions:
        session.abort(reason)
