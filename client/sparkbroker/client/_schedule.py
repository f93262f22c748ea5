"""When an attachment is to be renewed and what an answer makes of it: pure decisions, ``now`` an argument.

==========  ===================================================================================
ATTACHED    the last renewal succeeded and its deadline hasn't passed
SUSPECT     the broker can't be reached, or the deadline has passed: it may have been ended
LOST        the broker has said that it has ended; nothing leads back
==========  ===================================================================================
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

# google.rpc.Code: what says that an attachment has ended. Any other failure says nothing about it.
_OK: Final = 0
_ENDED_CODES: Final = frozenset({5, 9})  # NOT_FOUND, FAILED_PRECONDITION

PERIOD: Final = 1 / 3
"""The part of the time to live after which it is renewed: two renewals may fail before it ends."""
SHORTEST_REPLY_TIMEOUT: Final = 0.5
LONGEST_REPLY_TIMEOUT: Final = 10.0


class BeatState(Enum):
    """See the module."""

    ATTACHED = "ATTACHED"
    SUSPECT = "SUSPECT"
    LOST = "LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One attachment's heartbeat. ``sent`` is when the last renewal that succeeded was sent; ``ttl`` is in seconds.

    ``retry_at`` is set after a renewal was refused for a reason that may pass.
    """

    lease: str
    generation: int
    ttl: float
    sent: float
    state: BeatState = BeatState.ATTACHED
    retry_at: float | None = None

    @property
    def deadline(self) -> float:
        """When the broker may end it, at the earliest.

        Promise 3: it counts from when the last renewal was sent, and so is never later than the broker's own.
        """
        return self.sent + self.ttl

    @property
    def renew_at(self) -> float:
        return self.sent + self.ttl * PERIOD if self.retry_at is None else self.retry_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One renewal's result: a google.rpc.Code, and the ttl in seconds if it is 0."""

    code: int
    ttl: float


def due(beats: Iterable[Beat], now: float) -> list[Beat]:
    """What is to be renewed now, the most urgent first."""
    return sorted((b for b in beats if b.renew_at <= now and b.state is not BeatState.LOST), key=lambda b: b.deadline)


def next_wake(beats: Iterable[Beat], now: float) -> float | None:
    """Seconds until there is something to do; None: nothing."""
    moments = []
    for beat in beats:
        if beat.state is BeatState.LOST:
            continue
        moments.append(beat.renew_at)
        if beat.state is BeatState.ATTACHED:
            moments.append(beat.deadline)
    return max(0.0, min(moments) - now) if moments else None


def reply_timeout(beats: Iterable[Beat]) -> float:
    """Seconds to wait for an answer before the stream counts as dead: short enough to try again before a deadline."""
    shortest = min((b.ttl for b in beats), default=LONGEST_REPLY_TIMEOUT)
    return min(LONGEST_REPLY_TIMEOUT, max(SHORTEST_REPLY_TIMEOUT, shortest * PERIOD))


def longest_pause(beats: Iterable[Beat]) -> float:
    """Seconds between two tries to reach a broker that was away: several fit into the ttl that a restarted one grants."""
    return min((b.ttl for b in beats), default=LONGEST_REPLY_TIMEOUT) / 6


def overdue(beat: Beat, now: float) -> Beat:
    """SUSPECT if its deadline has passed without a renewal."""
    if beat.state is BeatState.ATTACHED and now >= beat.deadline:
        return replace(beat, state=BeatState.SUSPECT)
    return beat


def unreachable(beat: Beat) -> Beat:
    """SUSPECT: the broker can't be asked. Promise 3: it is never LOST for that."""
    return replace(beat, state=BeatState.SUSPECT) if beat.state is BeatState.ATTACHED else beat


def answered(beat: Beat, answer: Answer, sent: float, now: float) -> Beat:
    """What the answer to a renewal that was sent at ``sent`` makes of it."""
    if beat.state is BeatState.LOST:
        return beat
    if answer.code in _ENDED_CODES:
        return replace(beat, state=BeatState.LOST)
    if answer.code != _OK:
        return overdue(replace(beat, retry_at=now + min(1.0, beat.ttl * PERIOD)), now)
    ttl = answer.ttl if answer.ttl > 0 else beat.ttl
    return overdue(replace(beat, ttl=ttl, sent=max(sent, beat.sent), retry_at=None, state=BeatState.ATTACHED), now)
