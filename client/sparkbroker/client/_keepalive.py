"""Renews all attachments of a client over one stream: the thin shell around ``_schedule``."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sparkbroker.client import _clock, _schedule
from sparkbroker.client._errors import BrokerFault, BrokerUnreachable, SparkbrokerError
from sparkbroker.client._schedule import Answer, Beat, BeatState
from sparkbroker.client._tasks import Tasks
from sparkbroker.client._transport import Duplex, Interrupted, Transport
from sparkbroker.v1 import broker_pb2 as pb

_log = logging.getLogger("sparkbroker.client")
_MOST_RENEWALS: Final = 1000
_LONGEST_SLEEP: Final = 5.0
"""Timers stand still while the machine sleeps, deadlines don't: look at the clock at least this often."""
_LONGEST_PAUSE: Final = 2.0


class Holder(Protocol):
    """Whose attachment it is. Called in the event loop; must not raise."""

    def renewal_suspect(self, message: str) -> None:
        """It may have been ended: the broker can't be asked, or the deadline has passed."""

    def renewal_resumed(self) -> None:
        """It is alive after all."""

    def renewal_lost(self, reason: str, message: str) -> None:
        """The broker has said that it has ended. The last call."""

    def renewal_notice(self, message: str) -> None:
        """The broker's notice, when it changed."""


@dataclass(slots=True)
class _Entry:
    beat: Beat
    holder: Holder
    notice: str = ""


class KeepAlive:
    """One task, which runs while there is something to renew."""

    def __init__(self, transport: Transport, tasks: Tasks, clock: Callable[[], float] = _clock.now) -> None:
        self._transport = transport
        self._tasks = tasks
        self._clock = clock
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._answers = 0

    def __repr__(self) -> str:
        states = [entry.beat.state for entry in self._entries.values()]
        suspect = states.count(BeatState.SUSPECT)
        return f"<KeepAlive [{len(states) - suspect} attached, {suspect} suspect]>"

    def add(self, beat: Beat, holder: Holder) -> None:
        """Renew from now on."""
        self._entries[beat.lease, beat.generation] = _Entry(beat, holder)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._run(), "keepalive")

    def remove(self, lease: str, generation: int) -> None:
        """Renew no more. What is not known is ignored."""
        self._entries.pop((lease, generation), None)
        self._changed.set()

    def beat(self, lease: str, generation: int) -> Beat | None:
        entry = self._entries.get((lease, generation))
        return None if entry is None else entry.beat

    async def _run(self) -> None:
        failures = 0
        while self._entries:
            before = self._answers
            error: Exception | None = None
            try:
                await self._serve_one_stream()
            except Interrupted:
                continue
            except SparkbrokerError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001  a bug here must not end the renewals of every lease
                _log.exception("sparkbroker: renewing failed in an unforeseen way")
                error = failure
            if self._answers > before:
                # It has worked; servers end streams as they like. Only a new one that fails at once is a sign.
                failures = 0
                continue
            failures += 1
            if error is not None:
                self._suspect_all(str(error))
            await self._pause(failures)

    async def _serve_one_stream(self) -> None:
        """Renew over one stream until it ends in good order."""
        stream = await self._transport.duplex("KeepAlive")
        try:
            while self._entries:
                self._check_deadlines()
                due = _schedule.due((e.beat for e in self._entries.values()), self._clock())[:_MOST_RENEWALS]
                if not due:
                    await self._sleep(_schedule.next_wake((e.beat for e in self._entries.values()), self._clock()))
                elif not await self._renew(stream, due):
                    return
        finally:
            stream.cancel()

    async def _renew(self, stream: Duplex, due: list[Beat]) -> bool:
        """One request and its answer. False: the server has ended the stream in good order."""
        renewals = [pb.Renewal(name=beat.lease, generation=beat.generation) for beat in due]
        sent = self._clock()
        limit = _schedule.reply_timeout(due)
        try:
            async with asyncio.timeout(limit):
                await stream.send(pb.KeepAliveRequest(renewals=renewals))
                response = await stream.receive()
        except TimeoutError as error:
            self._transport.distrust()
            raise BrokerUnreachable(f"the broker has not answered a renewal for {limit:.1f} s") from error
        if response is None:
            return False
        if not isinstance(response, pb.KeepAliveResponse) or len(response.results) != len(due):
            raise BrokerFault("the broker has not answered each renewal")
        self._answers += 1
        for beat, result in zip(due, response.results, strict=True):
            self._apply(beat, result, sent)
        return True

    def _apply(self, beat: Beat, result: pb.RenewalResult, sent: float) -> None:
        entry = self._entries.get((beat.lease, beat.generation))
        if entry is None:
            return
        ttl = result.ttl.seconds + result.ttl.nanos / 1e9
        before = entry.beat.state
        entry.beat = _schedule.answered(entry.beat, Answer(code=result.code, ttl=ttl), sent, self._clock())
        match entry.beat.state:
            case BeatState.LOST:
                self.remove(beat.lease, beat.generation)
                entry.holder.renewal_lost(result.error_reason, result.message)
            case BeatState.ATTACHED if before is BeatState.SUSPECT:
                entry.holder.renewal_resumed()
            case BeatState.SUSPECT if before is BeatState.ATTACHED:
                entry.holder.renewal_suspect(result.message or "the deadline of the lease has passed")
        if result.code == 0 and result.message != entry.notice:
            entry.notice = result.message
            entry.holder.renewal_notice(result.message)

    def _check_deadlines(self) -> None:
        for entry in list(self._entries.values()):
            self._set(entry, _schedule.overdue(entry.beat, self._clock()), "the deadline of the lease has passed")

    def _suspect_all(self, message: str) -> None:
        for entry in list(self._entries.values()):
            self._set(entry, _schedule.unreachable(entry.beat), message)

    @staticmethod
    def _set(entry: _Entry, beat: Beat, message: str) -> None:
        changed = beat.state is not entry.beat.state
        entry.beat = beat
        if changed:
            entry.holder.renewal_suspect(message)

    async def _sleep(self, seconds: float | None) -> None:
        """Until then, or until an attachment comes or goes."""
        try:
            async with asyncio.timeout(_LONGEST_SLEEP if seconds is None else min(seconds, _LONGEST_SLEEP)):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _pause(self, failures: int) -> None:
        longest = min(_LONGEST_PAUSE, _schedule.longest_pause(e.beat for e in self._entries.values()))
        delay = min(longest, 0.1 * 2 ** min(failures, 8)) * (0.5 + random.random() / 2)  # noqa: S311  jitter
        await asyncio.sleep(delay)
        self._check_deadlines()
