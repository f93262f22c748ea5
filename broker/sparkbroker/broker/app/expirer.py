"""Applies what time does to leases, on the serving clock (promises 2, 3, 4), and keeps that clock ticking."""

import asyncio
import heapq
from typing import Final, assert_never

import structlog

from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.ending import Ending
from sparkbroker.broker.app.events import Events
from sparkbroker.broker.app.serving import store_is_due
from sparkbroker.broker.domain.lease import expiry
from sparkbroker.broker.domain.lease.event import EventType
from sparkbroker.broker.domain.lease.lease import Lease, LeaseState, notify, renew
from sparkbroker.broker.domain.units import Generation, LeaseId, ServingTime

log = structlog.get_logger()

TICK: Final = 0.2
AT_ONCE: Final = 500
"""Leases that one tick ends; the rest follow in the next, so that requests are answered between them."""
SLACK: Final = 1024


class Expirer:
    """A heap of deadlines, corrected lazily: a renewal costs nothing here. ``<Expirer [12 deadlines]>``."""

    def __init__(self, authority: Authority, events: Events, ending: Ending) -> None:
        self._authority = authority
        self._events = events
        self._ending = ending
        self._heap: list[tuple[ServingTime, LeaseId]] = []
        self._due: dict[LeaseId, ServingTime] = {}
        authority.on_lease.append(self.note)

    def __repr__(self) -> str:
        return f"<Expirer [{len(self._due)} deadlines]>"

    def note(self, lease: Lease) -> None:
        """A lease has changed: its earliest deadline may be another."""
        due = expiry.next_due(lease)
        if due is None:
            self._due.pop(lease.id, None)
            return
        scheduled = self._due.get(lease.id)
        if scheduled is None or due < scheduled:
            self._due[lease.id] = due
            heapq.heappush(self._heap, (due, lease.id))
            if len(self._heap) > 2 * len(self._due) + SLACK:
                self._heap = [(moment, lease_id) for lease_id, moment in self._due.items()]
                heapq.heapify(self._heap)

    async def run(self) -> None:
        """Tick until cancelled."""
        began = stored = self._authority.serving.now()
        while True:
            await asyncio.sleep(TICK)
            now = self._authority.serving.tick()
            self.expire(now)
            if self._due and store_is_due(began, stored, now):
                stored = now
                self._authority.commits.heartbeat()

    def expire(self, now: ServingTime) -> int:
        """Apply what is due; return how many leases were looked at."""
        looked = 0
        while self._heap and self._heap[0][0] <= now and looked < AT_ONCE:
            due, lease_id = heapq.heappop(self._heap)
            if self._due.get(lease_id) != due:
                continue
            del self._due[lease_id]
            lease = self._authority.leases.get(lease_id)
            if lease is None:
                continue
            looked += 1
            while (verdict := expiry.verdict(lease, now, watched=self._events.watched(lease_id))) is not None:
                lease = self._apply(lease, verdict, now)
            self.note(lease)
        return looked

    def _apply(self, lease: Lease, verdict: expiry.Verdict, now: ServingTime) -> Lease:
        match verdict:
            case expiry.End(reason, message):
                log.info("lease.expired", lease=lease.id, reason=str(reason), message=message)
                return self._ending.end(lease, LeaseState.EXPIRED, reason, message)
            case expiry.Detach(generations):
                return self._ending.detach(lease, generations)
            case expiry.Notify(notice):
                return self._authority.put_lease(notify(lease, notice), (EventType.NOTICE, Generation(0)))
            case expiry.StillWanted():
                # The first under a leadership is stored, as a renewal by the holder is (see ``recover``).
                epoch = self._authority.epoch
                wanted = renew(lease, Generation(0), now, epoch)
                return self._authority.touch_lease(wanted, store=lease.renewed_epoch != epoch)
            case _:
                assert_never(verdict)
