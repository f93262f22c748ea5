"""One lease, from the holder's side."""

import asyncio
import copy
import functools
import logging
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Literal, Self

from sparkbroker.client import _clock, _waiting
from sparkbroker.client._blocking import in_thread
from sparkbroker.client._error_texts import keep_texts
from sparkbroker.client._errors import BrokerFault, LeaseLost, LeaseNotFound, SparkbrokerError, WrongProcess
from sparkbroker.client._holding import Holding
from sparkbroker.client._lease_context import LeaseContext
from sparkbroker.client._lease_info import LeaseInfo
from sparkbroker.client._session_base import OpenSession
from sparkbroker.client._values import LIVE, Connection, Progress, read_connection
from sparkbroker.v1 import broker_pb2 as pb

_log = logging.getLogger("sparkbroker.client")
RELEASE_TIMEOUT: Final = 10.0
"""Seconds that a release may take, the closing of sessions apart."""


class AsyncLease:
    """A handle on a lease. Acquired, it isn't attached yet: ``wait_ready``, then ``attach`` (or ``open_session``).

    ``async with`` releases it, and raises LeaseLost if it was lost meanwhile, from the body's own error if it has one.
    A handle that isn't attached and isn't used with ``async with`` leaves the lease to whoever attaches to it.
    """

    def __init__(self, context: LeaseContext, info: pb.Lease, *, joined: bool = False) -> None:
        self._context = context
        self._joined = joined
        self._holder = ""
        self._holding = Holding(context, info, self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} [{', '.join(self._holding.words())}]>"

    @property
    def name(self) -> str:
        """leases/{id}."""
        return self._holding.name

    @property
    def info(self) -> LeaseInfo:
        """The lease as it was last seen; ``refresh`` reads it."""
        return LeaseInfo.of(self._holding.info)

    @property
    def state(self) -> str:
        """Its state as it was last seen, such as QUEUED or READY."""
        return self._holding.state

    @property
    def live(self) -> bool:
        """It was QUEUED, PROVISIONING or READY when it was last seen."""
        return self._holding.state in LIVE

    @property
    def attached(self) -> bool:
        """It is renewed in the background, and was not lost."""
        return self._holding.attached

    @property
    def generation(self) -> int:
        """The fencing token of this attachment; 0: not attached."""
        return self._holding.generation

    @property
    def suspect(self) -> str:
        """Why the broker may have ended the lease without our knowing. Empty: nothing speaks for it."""
        return "" if self._holding.loss is not None else self._holding.suspect

    @property
    def notice(self) -> str:
        """What the broker says will happen to it, such as its max_duration."""
        return self._holding.notice

    @property
    def lost(self) -> LeaseLost | None:
        """How it was lost; None: it was not."""
        return self._holding.loss and copy.copy(self._holding.loss)

    async def refresh(self) -> LeaseInfo:
        """Read the lease from the broker."""
        return LeaseInfo.of(await _waiting.refresh(self._holding))

    async def progress(self, timeout: float | None = None) -> AsyncGenerator[Progress, None]:
        """Each change until the lease is READY, which is the last.

        Raise AcquireFailed (AcquireTimeout if its time or ``timeout`` seconds have passed: the lease then still
        waits), and BrokerUnreachable when the client's patience with a broker that is away is over.
        """
        self.check()
        async with aclosing(_waiting.changes(self._holding, timeout)) as changes:
            async for progress in changes:
                yield progress

    async def wait_ready(
        self, on_progress: Callable[[Progress], object] | None = None, *, timeout: float | None = None
    ) -> None:
        """Wait until it is READY, calling ``on_progress`` at each change; errors as of ``progress``.

        What ``on_progress`` raises ends the waiting and is raised here.
        """
        async with aclosing(self.progress(timeout)) as changes:
            async for progress in changes:
                if on_progress is not None:
                    on_progress(progress)

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
        response = await self._holding.guarded(self._context.rpc.call("AttachLease", request, pb.AttachLeaseResponse))
        self._holding.begin(response, sent)

    async def connection(self) -> Connection:
        """How to connect; attaches first where that hasn't happened. The answer is secret."""
        await self.attach()
        request = pb.GetConnectionRequest(name=self.name, generation=self.generation)
        response = await self._holding.guarded(
            self._context.rpc.call("GetConnection", request, pb.GetConnectionResponse)
        )
        connection = read_connection(response)
        if connection is None:
            raise BrokerFault(f"{self.name} has a kind of connection that is newer than this client")
        return connection

    async def session_connection(self) -> Connection:
        """As ``connection``, for a session that doesn't exist yet: a session id serves once, then it is attached anew."""
        self.check()
        await self._holding.sessions.make_room()
        if self._holding.sessions.id_used and self.attached:
            self._holding.end_renewals()
            self._holding.generation = 0
        return await self.connection()

    def adopt_session(self, session: OpenSession) -> None:
        """Close this session when the lease is released, and interrupt it when the lease is lost."""
        self._holding.sessions.adopt(session)

    async def open_session(self, *, api: Literal["classic", "connect"] = "classic", app_name: str = "") -> Any:
        """A Spark session on the lease; it is closed by ``close_session`` or with the lease.

        ``api`` is for LOCAL leases: ``classic`` (with ``sparkContext``) or ``connect``.
        """
        connection = await self.session_connection()
        return (await self._holding.sessions.open(connection, api=api, app_name=app_name or self.name)).spark

    async def close_session(self) -> None:
        """Close the lease's sessions, within seconds also if their server is dead."""
        await self._holding.sessions.close()

    @asynccontextmanager
    async def session(
        self, *, api: Literal["classic", "connect"] = "classic", app_name: str = ""
    ) -> AsyncIterator[Any]:
        """``open_session`` and ``close_session``. An error of the body is replaced by LeaseLost if that is its cause."""
        spark = await self.open_session(api=api, app_name=app_name)
        try:
            yield spark
        except Exception as error:
            await in_thread(functools.partial(keep_texts, error), "error-text")
            await self.raise_if_lost(error)
            raise
        finally:
            await self.close_session()

    async def raise_if_lost(self, cause: BaseException | None = None) -> None:
        """Ask the broker whether this attachment still lives; raise LeaseLost from ``cause`` if it doesn't.

        A broker that doesn't answer in a few seconds says nothing.
        """
        if not isinstance(cause, LeaseLost):
            await self._holding.verify(cause)

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
        if self._holding.pid != os.getpid():
            raise WrongProcess(f"{self.name} belongs to process {self._holding.pid}, which releases it")
        if self._holding.released or self._holding.detached:
            return True
        return bool(await self._context.tasks.finish(self._release(message, everyone, timeout), "release"))

    async def detach(self) -> None:
        """Close the sessions and renew no more, without giving the lease back: somebody else is to attach to it.

        A lease with ``keep_when_holder_lost`` stays for its unattended_ttl; another one ends after its ttl. This handle
        can't be used any more, and the end of ``async with`` does nothing.
        """
        self.check()
        self._holding.detached = True
        await self.close_session()
        self._holding.end_renewals()
        self._context.held.discard(self)
        self._holding.generation = 0

    async def _release(self, message: str, everyone: bool, timeout: float) -> bool:
        holding = self._holding
        await self.close_session()
        holding.end_renewals()
        self._context.held.discard(self)
        if holding.loss is not None:
            holding.released = True
            return True
        generation = 0 if everyone else holding.generation
        request = pb.ReleaseLeaseRequest(name=self.name, generation=generation, message=message[:256])
        try:
            async with asyncio.timeout(timeout):
                response = await self._context.rpc.call(
                    "ReleaseLease", request, pb.ReleaseLeaseResponse, patience=timeout
                )
            holding.info = response.lease
        except (LeaseLost, LeaseNotFound) as error:
            holding.renewal_lost(error.reason, error.message)
        except (SparkbrokerError, TimeoutError) as error:
            text = str(error) or f"no answer within {timeout} s"
            _log.warning("sparkbroker: %s could not be released and ends by its time to live: %s", self.name, text)
            return False
        holding.released = True
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        holding = self._holding
        if holding.pid != os.getpid():
            return  # a forked child leaves its parent's block: the lease isn't its own
        if holding.detached:
            return
        if self._joined and not self.generation and holding.info.spec.sharing == pb.LEASE_SHARING_SHARED:
            return  # others may be attached to it: it isn't ours to end
        if self.attached and isinstance(error, Exception):
            await in_thread(functools.partial(keep_texts, error), "error-text")
            try:
                await self.raise_if_lost(error)
            finally:
                await self.release()
            return
        await self.release()
        if not isinstance(error, LeaseLost) and (error is None or isinstance(error, Exception)):
            await holding.raise_loss(error)

    def check(self) -> None:
        """Raise what stands against using the lease here and now: LeaseLost, WrongProcess, LeaseEnded."""
        self._holding.check()
