"""What this client knows of a lease and of its own attachment to it: alive, suspect or lost."""

import asyncio
import copy
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sparkbroker.client import _progress
from sparkbroker.client._errors import LeaseEnded, LeaseLost, LeaseNotFound, SparkbrokerError, WrongProcess
from sparkbroker.client._lease_context import Handle, LeaseContext, call_logged
from sparkbroker.client._lease_sessions import LeaseSessions
from sparkbroker.client._schedule import Beat
from sparkbroker.client._values import LIVE
from sparkbroker.client._words import state_name
from sparkbroker.v1 import broker_pb2 as pb

T = TypeVar("T")
_log = logging.getLogger("sparkbroker.client")
_LOSS_DETAILS_TIMEOUT: Final = 2.0
_VERIFY_TIMEOUT: Final = 3.0


class Holding:
    """The state behind an AsyncLease, its ``handle``; a Holder for the keepalive. Belongs to one event loop."""

    def __init__(self, context: LeaseContext, info: pb.Lease, handle: Handle) -> None:
        self.context: Final = context
        self.pid: Final = os.getpid()
        self.sessions: Final = LeaseSessions(
            context.tasks,
            lease=lambda: self.name,
            check=self.check,
            explain=self.explain,
            connection=handle.connection,
        )
        self.info = info
        self.generation = 0
        self.suspect = ""
        self.notice = ""
        self.loss: LeaseLost | None = None
        self.released = False
        self.detached = False
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._loss_known = asyncio.Event()

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def state(self) -> str:
        return state_name(self.info.state)

    @property
    def attached(self) -> bool:
        return bool(self.generation) and self.loss is None and not self.released

    def words(self) -> list[str]:
        """For people."""
        words = [self.state]
        if self.generation and not self.released:
            words.append(f"attached as generation {self.generation}")
        if self.loss is not None:
            words.append("lost")
        elif self.suspect:
            words.append("suspect")
        if self.released or self.detached:
            words.append("released" if self.released else "detached")
        return words

    def check_process(self) -> None:
        """Raise WrongProcess in a forked child."""
        if self.pid != os.getpid():
            raise WrongProcess(f"{self.name} belongs to process {self.pid}; this forked child needs a lease of its own")

    def check(self) -> None:
        """Raise what stands against using the lease here and now: LeaseLost, WrongProcess, LeaseEnded."""
        self.check_process()
        if self.loss is not None:
            raise copy.copy(self.loss)
        if self.released or self.detached:
            how = "released" if self.released else "detached"
            raise LeaseEnded(f"{self.name} has been {how} by this program", lease=self.name, state=self.state)

    def begin(self, response: pb.AttachLeaseResponse, sent: float) -> None:
        """It is attached, by a request that was sent then: renew from now on."""
        self.info = response.lease
        self.generation = response.attachment.generation
        self.context.held.add(self._handle)
        ttl = response.ttl.seconds + response.ttl.nanos / 1e9
        self.context.keepalive.add(Beat(lease=self.name, generation=self.generation, ttl=ttl, sent=sent), self)

    def end_renewals(self) -> None:
        self.context.keepalive.remove(self.name, self.generation)

    async def guarded(self, call: Awaitable[T]) -> T:
        """A call for this attachment: that it has ended is a loss."""
        try:
            return await call
        except (LeaseEnded, LeaseNotFound) as error:
            self.renewal_lost(error.reason, error.message)
            await self.raise_loss(error)
            raise

    async def verify(self, cause: BaseException | None) -> None:
        """Ask the broker whether the attachment still lives; raise LeaseLost from ``cause`` if it doesn't.

        A broker that doesn't answer in a few seconds says nothing.
        """
        if self.loss is None and self.attached:
            request = pb.RenewLeaseRequest(name=self.name, generation=self.generation)
            try:
                async with asyncio.timeout(_VERIFY_TIMEOUT):
                    await self.context.rpc.call("RenewLease", request, pb.RenewLeaseResponse, patience=_VERIFY_TIMEOUT)
            except (LeaseEnded, LeaseNotFound) as error:
                self.renewal_lost(error.reason, error.message)
            except (SparkbrokerError, TimeoutError):
                _log.info("sparkbroker: whether %s still lives could not be asked", self.name)
        await self.raise_loss(cause)

    async def raise_loss(self, cause: BaseException | None) -> None:
        """Raise LeaseLost from ``cause`` if it is lost, with what can be known of how."""
        if self.loss is not None:
            await self._loss_known.wait()  # bounded: see _after_loss
            raise copy.copy(self.loss) from cause

    def explain(self, cause: BaseException) -> None:
        """Raise LeaseLost from an error of Spark's if that is why. Blocks for seconds; for the thread of the Spark call."""
        if self.pid != os.getpid():
            return
        if self._loop.is_closed() or asyncio._get_running_loop() is self._loop:  # noqa: SLF001  the public one raises
            # Here it can't be waited for; what is known is told.
            if self.loss is not None:
                raise copy.copy(self.loss) from cause
            return
        asked = asyncio.run_coroutine_threadsafe(self.verify(cause), self._loop)
        try:
            asked.result(_VERIFY_TIMEOUT + _LOSS_DETAILS_TIMEOUT + 1)
        except TimeoutError:
            asked.cancel()

    # Holder: what the keepalive tells.

    def renewal_suspect(self, message: str) -> None:
        self.suspect = message or "unknown"
        _log.warning("sparkbroker: %s is suspect, its session goes on: %s", self.name, message)
        self._tell(self.context.callbacks.suspect)

    def renewal_resumed(self) -> None:
        self.suspect = ""
        # Whoever saw the warning sees its end, too.
        _log.warning("sparkbroker: %s is no longer suspect: the broker has answered", self.name)
        self._tell(self.context.callbacks.resumed)

    def renewal_notice(self, message: str) -> None:
        self.notice = message
        if message:
            _log.warning("sparkbroker: %s: %s", self.name, message)
        self._tell(self.context.callbacks.notice)

    def renewal_lost(self, reason: str, message: str) -> None:
        """It is lost, from now on; how is asked for, its sessions are interrupted, and then the callback is called.

        Promise 9: nothing leads back, and ``check`` raises it at every use.
        """
        if self.loss is not None or self.released:
            return
        self.loss = LeaseLost(f"{self.name} is lost: {message or reason}", lease=self.name, reason=reason)
        self.end_renewals()
        _log.warning("sparkbroker: %s is lost: %s", self.name, message or reason)
        self.context.tasks.spawn(self._after_loss(), "loss")

    async def _after_loss(self) -> None:
        try:
            async with asyncio.timeout(_LOSS_DETAILS_TIMEOUT):
                request = pb.GetLeaseRequest(name=self.name)
                response = await self.context.rpc.call(
                    "GetLease", request, pb.GetLeaseResponse, patience=_LOSS_DETAILS_TIMEOUT
                )
            self.info = response.lease
            if self.state not in LIVE:
                self.loss = _progress.lost_error(self.info)
        except (SparkbrokerError, TimeoutError):
            _log.info("sparkbroker: how %s was lost could not be asked", self.name)
        finally:
            self._loss_known.set()
        await self.sessions.abort(str(self.loss))
        self._tell(self.context.callbacks.lost)

    def _tell(self, callback: Callable[[Any], object] | None) -> None:
        if callback is not None:
            call_logged(callback, self._handle)
