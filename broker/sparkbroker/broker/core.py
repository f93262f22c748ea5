"""A broker without a transport: the one place where the application's parts are put together, over given ports.

Each part is given those that it calls; what it has to hear of, it subscribes to (``Authority.on_lease``, ``on_driver``,
``Ledger.on_freed``). ``bootstrap`` makes the ports from the configuration, and nothing of ``app`` but values.
Promises: after ``recover`` every lease and driver that is not terminal is looked after; ``run`` owns every task.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog

from sparkbroker.broker.app.access import Access, Answers
from sparkbroker.broker.app.acquiring import Acquiring
from sparkbroker.broker.app.admitter import Admitter
from sparkbroker.broker.app.allowance import Allowance
from sparkbroker.broker.app.attaching import Attaching
from sparkbroker.broker.app.authority import Authority
from sparkbroker.broker.app.catalogue import Catalogue
from sparkbroker.broker.app.ending import Ending
from sparkbroker.broker.app.events import Events
from sparkbroker.broker.app.expirer import Expirer
from sparkbroker.broker.app.forcing import Forcing
from sparkbroker.broker.app.ids import Ids
from sparkbroker.broker.app.inventory import Inventory
from sparkbroker.broker.app.janitor import Janitor, Retention
from sparkbroker.broker.app.leases import Leases
from sparkbroker.broker.app.log_readers import LogReaders
from sparkbroker.broker.app.reconciler import Reconciler
from sparkbroker.broker.app.session_ends import SessionEnds
from sparkbroker.broker.app.watching import Watching
from sparkbroker.broker.domain.admission.cycle import Admission
from sparkbroker.broker.domain.capacity.ledger import Ledger
from sparkbroker.broker.domain.lease.driver import DriverState
from sparkbroker.broker.domain.units import Seconds
from sparkbroker.broker.ports.clock import Clock
from sparkbroker.broker.ports.metrics import Metrics
from sparkbroker.broker.ports.provisioner import Provisioner
from sparkbroker.broker.ports.store import Store

log = structlog.get_logger()

CLOSE_LIMIT: Final = 20.0
"""Seconds for a provisioner to let go: an embedded broker's ends its drivers in that time."""


class Core:
    """A broker without a transport: ``recover`` it, then ``run`` it in a task until ``stop``.

    ``leases`` are its use cases. ``repr`` shows its parts' live counts.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: Store,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
        metrics: Metrics,
        retention: Retention | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._store = store
        self._provisioners = provisioners
        retention = retention or Retention()
        self.events = Events()
        ledger = Ledger({name: queue.nominal for name, queue in catalogue.queues.items()}, catalogue.pools)
        self.authority = Authority(store, clock, metrics, ledger, self.events)
        self.reconciler = Reconciler(self.authority, provisioners)
        self.session_ends = SessionEnds(self.authority, self.reconciler.enqueue)
        ids = Ids(clock)
        self.admitter = Admitter(self.authority, Admission(catalogue.queues), ids, metrics, self.reconciler.enqueue)
        ending = Ending(self.authority, self.reconciler)
        self.expirer = Expirer(self.authority, self.events, ending)
        self._watching = Watching(self.authority, self.admitter, self.events, store)
        self.inventory = Inventory(self.authority, self.admitter, self.reconciler, provisioners, clock)
        self._janitor = Janitor(self.authority, provisioners, retention)
        self.leases = self._use_cases(
            catalogue, ending, ids, clock, metrics, allowance or Allowance(), retention.request_age
        )
        self._stopping = asyncio.Event()
        self._led = self._recovered = False

    def _use_cases(
        self,
        catalogue: Catalogue,
        ending: Ending,
        ids: Ids,
        clock: Clock,
        metrics: Metrics,
        allowance: Allowance,
        request_age: Seconds,
    ) -> Leases:
        access = Access(self.authority, self.admitter)
        answers = Answers(self.authority, clock, metrics, allowance, request_age)
        return Leases(
            authority=self.authority,
            catalogue=catalogue,
            admitter=self.admitter,
            access=access,
            acquiring=Acquiring(
                authority=self.authority,
                catalogue=catalogue,
                admitter=self.admitter,
                ending=ending,
                access=access,
                answers=answers,
                ids=ids,
                clock=clock,
                metrics=metrics,
                allowance=allowance,
            ),
            attaching=Attaching(
                authority=self.authority,
                session_ends=self.session_ends,
                ending=ending,
                access=access,
                answers=answers,
                provisioners=self._provisioners,
                ids=ids,
                clock=clock,
            ),
            forcing=Forcing(self.authority, access, ending, self.reconciler, self._provisioners),
            watching=self._watching,
            log_readers=LogReaders(allowance, clock, metrics),
            provisioners=self._provisioners,
        )

    def __repr__(self) -> str:
        parts = (self.authority, self.authority.ledger, self.admitter, self.reconciler, self.expirer, self.events)
        return f"<Core {' '.join(map(repr, parts))}>"

    def census(self) -> Mapping[tuple[str, str], int]:
        """How many leases there are by (queue, state)."""
        return Counter((lease.spec.queue, str(lease.state)) for lease in self.authority.leases.values())

    def retained(self) -> Mapping[str, int]:
        """How much is kept of what is bounded, by name."""
        authority = self.authority
        return {
            "ended_leases": len(authority.ended),
            "ended_lease_bytes": authority.ended.size,
            "event_bytes": authority.commits.events.size,
            "requests": len(authority.requests),
            "requests_of_one_principal": authority.requests.most(),
            "specs": len(authority.specs),
        }

    async def lead(self) -> None:
        """Take the store, and begin to accept renewals once ``run`` does. Raise StoreUnusable."""
        await self.authority.lead()
        self._led = True

    async def recover(self) -> None:
        """Take over what is stored. Raise StoreUnusable, ProvisionerFailed. ``run`` does it, if nobody did."""
        if not self._led:
            await self.lead()
        await self.authority.take_over()
        for lease in self.authority.leases.values():
            if lease.live:
                self.expirer.note(lease)
            self.admitter.note(lease)
        for provisioner in self._provisioners.values():
            await provisioner.start()
        for driver in self.authority.drivers.values():
            if driver.state is not DriverState.GONE:
                self.reconciler.enqueue(driver.id)
        self._recovered = True

    async def run(self) -> None:
        """Serve until ``stop``; raise StoreLost (in a group) if the store fails. What was accepted is committed."""
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(self.authority.commits.run(), name="commit")
                if not self._recovered:
                    await self.recover()
                working = [
                    group.create_task(part.run(), name=name)
                    for name, part in (
                        ("reconcile", self.reconciler),
                        ("expire", self.expirer),
                        ("watch", self._watching),
                        ("inventory", self.inventory),
                        ("retain", self._janitor),
                    )
                ]
                await self._stopping.wait()
                for task in working:
                    task.cancel()
                self.authority.commits.heartbeat()
                self.authority.commits.stop()
                await committing
        finally:
            self.events.close()  # also when it failed: no watch waits for what nobody will tell

    def stop(self) -> None:
        """Let ``run`` finish its commits and return. Sessions go on (promise 15)."""
        self.events.close()
        self._stopping.set()

    async def close(self) -> None:
        """Let go of provisioners and store. What doesn't let go in time is left to the end of the process."""
        for name, provisioner in self._provisioners.items():
            try:
                async with asyncio.timeout(CLOSE_LIMIT):
                    await provisioner.close()
            except TimeoutError:
                log.warning("provisioner.not_closed", provisioner=name, seconds=CLOSE_LIMIT)
        await self._store.close()
