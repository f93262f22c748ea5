"""The process's lease sessions, for code that asks pyspark for "the" session: libraries, threads, event loops.

The one that was opened last in the caller's own context (its thread, its asyncio task) wins; a thread that has opened
none, a pool's for one, gets the one that was opened last in the process. A session that was lost, or ended otherwise than by
its lease, keeps its place until the lease closes it: it is told, never replaced by an outer one.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from sparkbroker.client import _pyspark_hook
from sparkbroker.client._errors import SessionEnded, SparkbrokerError
from sparkbroker.client._session_base import OpenSession

if TYPE_CHECKING:
    from sparkbroker.client._pyspark_hook import Own


class _Held:
    """A session between its opening and its close."""

    def __init__(self, lease: str, session: OpenSession, check: Callable[[], None]) -> None:
        self.lease = lease
        self.session = session
        self.check = check

    def spark(self) -> Any:
        """Raise LeaseLost, WrongProcess, SessionEnded.

        Promise 9: a session that is no more is said to be, and no other one takes its place.
        """
        self.check()
        ended = self.session.ended
        if ended:
            raise SessionEnded(f"the Spark session of {self.lease} has ended: {ended}; open_session() opens another")
        return self.session.spark

    def spark_or_none(self) -> Any:
        try:
            return self.spark()
        except SparkbrokerError:
            return None


_here: "Final[ContextVar[tuple[_Held, ...]]]" = ContextVar("sparkbroker_sessions", default=())


class _Current:
    """See the module. A Lead."""

    def __init__(self) -> None:
        self._held: tuple[_Held, ...] = ()
        self._last = ""

    def enter(self, lease: str, session: OpenSession, check: Callable[[], None]) -> None:
        """It is open from now on."""
        self._held = (*self._held, _Held(lease, session, check))
        self._last = lease
        _pyspark_hook.install(self)

    def here(self, session: OpenSession) -> None:
        """It was opened in this context."""
        known = [held for held in _here.get() if held in self._held and held.session is not session]
        _here.set((*known, *(held for held in self._held if held.session is session)))

    def leave(self, session: OpenSession) -> None:
        """Its lease has closed it."""
        self._held = tuple(held for held in self._held if held.session is not session)

    def _find(self, own: "Own") -> _Held | None:
        open_here = [held for held in _here.get() if held in self._held]
        if open_here:
            return open_here[-1]
        if not self._held or own.active() is not None:
            return None
        return self._held[-1]

    def session(self, own: "Own") -> Any:
        held = self._find(own)
        if held is not None:
            return held.spark()
        if self._last and not own.is_asked_for() and own.active() is None and not own.exists():
            raise SessionEnded(
                f"the Spark session of {self._last} has ended with its lease, and no other takes its place: "
                "ask for a lease, or say with master() or remote() which Spark is meant"
            )
        return None

    def active(self, own: "Own") -> Any:
        held = self._find(own)
        return own.active() if held is None else held.spark_or_none()

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return dict(options)

    def decides(self) -> bool:
        return bool(self._held)

    def opened(self) -> None:
        """It is pyspark's."""

    def check_context(self) -> None:
        """A context of the program's own would be in the JVM of a lease whose session has ended."""
        for held in self._held:
            if held.session.in_process:
                held.spark()

    def context_settings(self) -> Mapping[str, str]:
        return {}

    def context_given(self, settings: Mapping[str, str]) -> None:
        """They stay."""

    def scrub(self, text: str) -> str:
        return text


CURRENT: Final = _Current()
