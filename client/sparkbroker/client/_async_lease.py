"""One lease, from the holder's side."""

import asyncio
import copy
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from sparkbroker.client import _clock, _progress
from sparkbroker.client._blocking import in_thread
from sparkbroker.client._errors import (
    AcquireTimeout,
    BrokerFault,
    BrokerUnreachable,
    EventsCompacted,
    LeaseEnded,
    LeaseLost,
    LeaseNotFound,
    SessionConflict,
    SparkbrokerError,
    WrongProcess,
)
from sparkbroker.client._keepalive import KeepAlive
from sparkbroker.client._rpc import Rpc
from sparkbroker.client._schedule import Beat
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._values import LIVE, Connection, Progress, read_connection, state_name
from sparkbroker.v1 import broker_pb2 as pb

if TYPE_CHECKING:
    from sparkbroker.client._session import OpenSession

T = TypeVar("T")
_log = logging.getLogger("sparkbroker.client")
RELEASE_TIMEOUT: Final = 10.0
"""Seconds that a release may take, the closing of sessions apart."""
_LOSS_DETAILS_TIMEOUT: Final = 2.0
_VERIFY_TIMEOUT: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Called in the event loop with the lease; what they raise is logged. ``notice``: ``lease.notice`` has changed."""

    suspect: Callable[[Any], object] | None = None
    resumed: Callable[[Any], object] | None = None
    lost: Callable[[Any], object] | None = None
    notice: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseContext:
    """What a lease needs of its client."""

    rpc: Rpc
    keepalive: KeepAlive
    tasks: Tasks
    held: "set[AsyncLease]"
    callbacks: Callbacks


def _close(sessions: "list[OpenSession]") -> None:
    for session in sessions:
        session.close()


def _abort(sessions: "list[OpenSession]", reason: str) -> None:
    for session in sessions:
        session.abort(reason)


def call_logged(callback: Callable[[Any], object], lease: Any) -> None:
    """Call back; the program's own error in it is logged, since there is nobody to raise it to."""
    try:
        callback(lease)
    except Exception:  # noqa: BLE001  see above
        _log.exception("sparkbroker: a callback for %s failed", lease.name)


class AsyncLease:
    """A handle on a lease. Acquired, it isn't attached yet: ``wait_ready``, then ``attach`` (or ``open_session``).

    ``async with`` releases it, and raises LeaseLost if it was lost meanwhile, from the body's own error if it has one.
    A handle that isn't attached and isn't used with ``async with`` leaves the lease to whoever attaches to it.
    """

    def __init__(self, context: LeaseContext, info: pb.Lease, *, joined: bool = False) -> None:
        self._context = context
        self._joined = joined
        self._pid = os.getpid()
        self._info = info
        self._generation = 0
        self._holder = ""
        self._suspect = ""
        self._notice = ""
        self._loss: LeaseLost | None = None
        self._loss_known = asyncio.Event()
        self._released = False
        self._detached = False
        self._sessions: list[OpenSession] = []
        self._session_id_used = False

    def __repr__(self) -> str:
        words = [self.state]
        if self._generation and not self._released:
            words.append(f"attached as generation {self._generation}")
        if self._loss is not None:
            words.append("lost")
        elif self._suspect:
            words.append("suspect")
        if self._released or self._detached:
            words.append("released" if self._released else "detached")
        return f"<{type(self).__name__} {self.name} [{', '.join(words)}]>"

    @property
    def name(self) -> str:
        """leases/{id}."""
        return self._info.name

    @property
    def info(self) -> pb.Lease:
        """The lease as it was last seen; ``refresh`` reads it."""
        return self._info

    @property
    def state(self) -> str:
        """Its state as it was last seen, such as QUEUED or READY."""
        return state_name(self._info.state)

    @property
    def attached(self) -> bool:
        """It is renewed in the background, and was not lost."""
        return bool(self._generation) and self._loss is None and not self._released

    @property
    def generation(self) -> int:
        """The fencing token of this attachment; 0: not attached."""
        return self._generation

    @property
    def suspect(self) -> str:
        """Why the broker may have ended the lease without our knowing. Empty: nothing speaks for it."""
        return "" if self._loss is not None else self._suspect

    @property
    def notice(self) -> str:
        """What the broker says will happen to it, such as its max_duration."""
        return self._notice

    @property
    def lost(self) -> LeaseLost | None:
        """How it was lost; None: it was not."""
        return self._loss and copy.copy(self._loss)

    async def refresh(self) -> pb.Lease:
        """Read the lease from the broker."""
        response = await self._context.rpc.call("GetLease", pb.GetLeaseRequest(name=self.name), pb.GetLeaseResponse)
        self._info = response.lease
        return self._info

    async def progress(self, timeout: float | None = None) -> AsyncIterator[Progress]:
        """Each change until the lease is READY, which is the last.

        Raise AcquireFailed (AcquireTimeout if its time or ``timeout`` seconds have passed: the lease then still
        waits), and BrokerUnreachable when the client's patience with a broker that is away is over.
        """
        self.check()
        end = None if timeout is None else _clock.now() + timeout
        progress = _progress.from_lease(self._info)
        told: Progress | None = None
        watch = self._context.rpc.watch(self.name, 0, outages=True)
        try:
            while True:
                if progress.state not in LIVE:
                    raise _progress.acquire_error(await self.refresh())
                if progress != told:
                    told = progress
                    yield progress
                if progress.state == "READY":
                    return
                try:
                    async with asyncio.timeout(None if end is None else max(0.0, end - _clock.now())):
                        update = await anext(watch)
                except TimeoutError as error:
                    text = f"{self.name} was not ready within {timeout} s: {progress.state}, {progress.message}"
                    raise AcquireTimeout(text, lease=self.name, state=progress.state, reason=progress.reason) from error
                except EventsCompacted:
                    watch = self._context.rpc.watch(self.name, 0, outages=True)
                    continue
                except StopAsyncIteration:
                    progress = _progress.from_lease(await self.refresh())
                    continue
                if isinstance(update, BrokerUnreachable):
                    progress = replace(progress, broker_unreachable=True, message=update.message)
                    continue
                progress = _progress.after_update(progress, update)
                self._see(update)
        finally:
            await watch.aclose()  # type: ignore[attr-defined]

    def _see(self, update: pb.WatchLeaseResponse) -> None:
        if update.WhichOneof("update") == "snapshot":
            self._info = update.snapshot
        elif update.WhichOneof("update") == "event":
            self._info.state = update.event.state
            self._info.reason = update.event.reason
            self._info.message = update.event.message
            self._info.attempt = update.event.attempt

    async def wait_ready(
        self, on_progress: Callable[[Progress], object] | None = None, *, timeout: float | None = None
    ) -> None:
        """Wait until it is READY, calling ``on_progress`` at each change; errors as of ``progress``.

        What ``on_progress`` raises ends the waiting and is raised here.
        """
        changes = self.progress(timeout)
        try:
            async for progress in changes:
                if on_progress is not None:
                    on_progress(progress)
        finally:
            await changes.aclose()  # type: ignore[attr-defined]

    async def attach(self, holder: str = "") -> None:
        """Become the live user of the lease and renew from now on. For an exclusive lease this supersedes any other.

        ``holder`` is for people; empty: host and process. Attached already: nothing happens.
        """
        self.check()
        if self.attached:
            return
        self._holder = (holder or self._holder or f"{socket.gethostname()}:{os.getpid()}")[:256]
        request = pb.AttachLeaseRequest(name=self.name, request_id=str(uuid.uuid4()), holder=self._holder)
        sent = _clock.now()
        response = await self._guarded(self._context.rpc.call("AttachLease", request, pb.AttachLeaseResponse))
        self._info = response.lease
        self._generation = response.attachment.generation
        self._context.held.add(self)
        beat = Beat(
            lease=self.name,
            generation=self._generation,
            ttl=response.ttl.seconds + response.ttl.nanos / 1e9,
            sent=sent,
        )
        self._context.keepalive.add(beat, self)

    async def connection(self) -> Connection:
        """How to connect; attaches first where that hasn't happened. The answer is secret."""
        await self.attach()
        request = pb.GetConnectionRequest(name=self.name, generation=self._generation)
        response = await self._guarded(self._context.rpc.call("GetConnection", request, pb.GetConnectionResponse))
        connection = read_connection(response)
        if connection is None:
            raise BrokerFault(f"{self.name} has a kind of connection that is newer than this client")
        return connection

    async def session_connection(self) -> Connection:
        """As ``connection``, for a session that doesn't exist yet: a session id serves once, then it is attached anew."""
        self.check()
        if any(session.open for session in self._sessions):
            raise SessionConflict(f"{self.name} has an open session; use its newSession(), or a shared lease")
        if self._session_id_used and self.attached:
            self._context.keepalive.remove(self.name, self._generation)
            self._generation = 0
        return await self.connection()

    def adopt_session(self, session: "OpenSession") -> None:
        """Close this session when the lease is released, and interrupt it when the lease is lost."""
        self._sessions = [known for known in self._sessions if known.open] + [session]
        self._session_id_used = session.uses_session_id

    async def open_session(self, *, api: Literal["classic", "connect"] = "classic", app_name: str = "") -> Any:
        """A Spark session on the lease; it is closed by ``close_session`` or with the lease.

        ``api`` is for LOCAL leases: ``classic`` (with ``sparkContext``) or ``connect``.
        """
        from sparkbroker.client import _session  # noqa: PLC0415  only who opens a session pays for it

        connection = await self.session_connection()
        opened = await in_thread(
            lambda: _session.open_session(connection, api=api, app_name=app_name or self.name),
            "open-session",
            undo=lambda session: session.close(),
        )
        self.adopt_session(opened)
        return opened.spark

    async def close_session(self) -> None:
        """Close the lease's sessions, within seconds also if their server is dead."""
        sessions, self._sessions = self._sessions, []
        if sessions:
            await self._context.tasks.finish(in_thread(lambda: _close(sessions), "close"), "close")

    @asynccontextmanager
    async def session(
        self, *, api: Literal["classic", "connect"] = "classic", app_name: str = ""
    ) -> AsyncIterator[Any]:
        """``open_session`` and ``close_session``. An error of the body is replaced by LeaseLost if that is its cause."""
        spark = await self.open_session(api=api, app_name=app_name)
        try:
            yield spark
        except Exception as error:
            await self.raise_if_lost(error)
            raise
        finally:
            await self.close_session()

    async def raise_if_lost(self, cause: BaseException | None = None) -> None:
        """Ask the broker whether this attachment still lives; raise LeaseLost from ``cause`` if it doesn't.

        A broker that doesn't answer in a few seconds says nothing.
        """
        if isinstance(cause, LeaseLost):
            return
        if self._loss is None and self.attached:
            request = pb.RenewLeaseRequest(name=self.name, generation=self._generation)
            try:
                async with asyncio.timeout(_VERIFY_TIMEOUT):
                    await self._context.rpc.call("RenewLease", request, pb.RenewLeaseResponse, patience=_VERIFY_TIMEOUT)
            except (LeaseEnded, LeaseNotFound) as error:
                self.renewal_lost(error.reason, error.message)
            except (SparkbrokerError, TimeoutError):
                _log.info("sparkbroker: whether %s still lives could not be asked", self.name)
        await self._raise_loss(cause)

    async def logs(
        self, *, offset: int = 0, tail_lines: int = 0, follow: bool = False, attempt: int = 0
    ) -> AsyncIterator[bytes]:
        """The driver's log, in pieces of any size."""
        request = pb.StreamLogsRequest(
            name=self.name, offset=offset, tail_lines=tail_lines, follow=follow, attempt=attempt
        )
        async for chunk in self._context.rpc.logs(request):
            yield chunk.data

    async def release(self, message: str = "", *, everyone: bool = False, timeout: float = RELEASE_TIMEOUT) -> bool:
        """Close the sessions and give the lease back. Idempotent; never raises for a broker that is away.

        Of a shared lease only this attachment is given back, unless ``everyone``. Returns whether the broker has
        confirmed it; if not, a warning is logged, and the lease ends by its time to live.
        """
        if self._pid != os.getpid():
            raise WrongProcess(f"{self.name} belongs to process {self._pid}, which releases it")
        if self._released or self._detached:
            return True
        return bool(await self._context.tasks.finish(self._release(message, everyone, timeout), "release"))

    async def detach(self) -> None:
        """Close the sessions and renew no more, without giving the lease back: somebody else is to attach to it.

        A lease with ``keep_when_holder_lost`` stays for its unattended_ttl; another one ends after its ttl. This handle
        can't be used any more, and the end of ``async with`` does nothing.
        """
        self.check()
        self._detached = True
        await self.close_session()
        self._context.keepalive.remove(self.name, self._generation)
        self._context.held.discard(self)
        self._generation = 0

    async def _release(self, message: str, everyone: bool, timeout: float) -> bool:
        await self.close_session()
        self._context.keepalive.remove(self.name, self._generation)
        self._context.held.discard(self)
        if self._loss is not None:
            self._released = True
            return True
        generation = 0 if everyone else self._generation
        request = pb.ReleaseLeaseRequest(name=self.name, generation=generation, message=message[:256])
        try:
            async with asyncio.timeout(timeout):
                response = await self._context.rpc.call(
                    "ReleaseLease", request, pb.ReleaseLeaseResponse, patience=timeout
                )
            self._info = response.lease
        except (LeaseLost, LeaseNotFound) as error:
            self.renewal_lost(error.reason, error.message)
        except (SparkbrokerError, TimeoutError) as error:
            text = str(error) or f"no answer within {timeout} s"
            _log.warning("sparkbroker: %s could not be released and ends by its time to live: %s", self.name, text)
            return False
        self._released = True
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            return  # a forked child leaves its parent's block: the lease isn't its own
        if self._detached:
            return
        if self._joined and not self._generation and self._info.spec.sharing == pb.LEASE_SHARING_SHARED:
            return  # others may be attached to it: it isn't ours to end
        if self.attached and isinstance(error, Exception):
            try:
                await self.raise_if_lost(error)
            finally:
                await self.release()
            return
        await self.release()
        if not isinstance(error, LeaseLost) and (error is None or isinstance(error, Exception)):
            await self._raise_loss(error)

    # Holder: what the keepalive tells.

    def renewal_suspect(self, message: str) -> None:
        self._suspect = message or "unknown"
        _log.warning("sparkbroker: %s is suspect, its session goes on: %s", self.name, message)
        self._tell(self._context.callbacks.suspect)

    def renewal_resumed(self) -> None:
        self._suspect = ""
        _log.info("sparkbroker: %s is no longer suspect", self.name)
        self._tell(self._context.callbacks.resumed)

    def renewal_notice(self, message: str) -> None:
        self._notice = message
        if message:
            _log.warning("sparkbroker: %s: %s", self.name, message)
        self._tell(self._context.callbacks.notice)

    def renewal_lost(self, reason: str, message: str) -> None:
        """It is lost, from now on; how is asked for, its sessions are interrupted, and then the callback is called."""
        if self._loss is not None or self._released:
            return
        self._loss = LeaseLost(f"{self.name} is lost: {message or reason}", lease=self.name, reason=reason)
        self._context.keepalive.remove(self.name, self._generation)
        _log.warning("sparkbroker: %s is lost: %s", self.name, message or reason)
        self._context.tasks.spawn(self._after_loss(), "loss")

    async def _after_loss(self) -> None:
        try:
            async with asyncio.timeout(_LOSS_DETAILS_TIMEOUT):
                request = pb.GetLeaseRequest(name=self.name)
                response = await self._context.rpc.call(
                    "GetLease", request, pb.GetLeaseResponse, patience=_LOSS_DETAILS_TIMEOUT
                )
            self._info = response.lease
            if self.state not in LIVE:
                self._loss = _progress.lost_error(self._info)
        except (SparkbrokerError, TimeoutError):
            _log.info("sparkbroker: how %s was lost could not be asked", self.name)
        finally:
            self._loss_known.set()
        sessions = list(self._sessions)
        if sessions:
            reason = str(self._loss)
            await in_thread(lambda: _abort(sessions, reason), "abort-session")
        self._tell(self._context.callbacks.lost)

    async def _raise_loss(self, cause: BaseException | None) -> None:
        if self._loss is not None:
            await self._loss_known.wait()  # bounded: see _after_loss
            raise copy.copy(self._loss) from cause

    async def _guarded(self, call: Awaitable[T]) -> T:
        """A call for this attachment: that it has ended is a loss."""
        try:
            return await call
        except (LeaseEnded, LeaseNotFound) as error:
            self.renewal_lost(error.reason, error.message)
            await self._raise_loss(error)
            raise

    def _tell(self, callback: Callable[[Any], object] | None) -> None:
        if callback is not None:
            call_logged(callback, self)

    def check(self) -> None:
        """Raise what stands against using the lease here and now: LeaseLost, WrongProcess, LeaseEnded."""
        if self._pid != os.getpid():
            raise WrongProcess(
                f"{self.name} belongs to process {self._pid}; this forked child needs a lease of its own"
            )
        if self._loss is not None:
            raise copy.copy(self._loss)
        if self._released:
            raise LeaseEnded(f"{self.name} has been released by this program", lease=self.name, state=self.state)
        if self._detached:
            raise LeaseEnded(f"{self.name} has been detached by this program", lease=self.name, state=self.state)
