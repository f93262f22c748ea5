"""Waits for a lease in the triggerer: asks for it where a task begins there, and watches it until it is READY."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sparkbroker.airflow_provider import failures, identity, request
from sparkbroker.airflow_provider._compat import AirflowNotFoundException, BaseTrigger, TriggerEvent
from sparkbroker.airflow_provider.hooks.broker import SparkBrokerHook
from sparkbroker.airflow_provider.progress import Teller
from sparkbroker.client import LeaseKeyInUse, SparkbrokerError

if TYPE_CHECKING:
    from sparkbroker.client import Address, AsyncBroker, AsyncLease

CLASSPATH: Final = "sparkbroker.airflow_provider.triggers.lease.LeaseTrigger"
_MOST_ASKS: Final = 10
"""Of one run of a trigger, each for a lease whose forerunner has ended before it could be used."""
_KILL_TIMEOUT: Final = 25.0
"""Seconds for giving back a lease whose task was ended: Airflow's own limit is 30."""


class LeaseTrigger(BaseTrigger):
    """Fires once, with ``{"lease": name}`` when it is READY, or with an error as of ``failures.payload``.

    ``ask`` is what ``request.ask`` and ``identity.complete_ask`` made, with a ``request_id``; ``lease`` is the name of one
    that exists instead. Where a task begins in the triggerer there is neither: ``arguments`` are the operator's own,
    templates rendered here, with ``sharing`` and ``retry_window`` as ``identity.complete_ask`` needs them.

    A restart of the triggerer runs it anew, under the same request id: the lease stays, with its place in the queue. A user
    who ends the task ends the lease; that is ``on_kill``, which Airflow has since 3.3.
    """

    template_fields: tuple[str, ...]

    def __init__(
        self,
        *,
        conn_id: str,
        ask: dict[str, Any] | None = None,
        lease: str | None = None,
        sharing: str | None = None,
        retry_window: float = 0.0,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.ask = ask
        self.lease = lease
        self.sharing = sharing
        self.retry_window = retry_window
        self._given = tuple(arguments)
        self._found = ""
        self._broken: request.InvalidArgument | None = None
        for name, value in arguments.items():
            if name not in request.LEASE_ARGUMENTS:
                raise TypeError(f"LeaseTrigger has no argument {name!r}")
            setattr(self, name, value)  # Airflow renders attributes that are named as the operator's template fields

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes it anew."""
        kwargs = {
            "conn_id": self.conn_id,
            "ask": self.ask,
            "lease": self.lease,
            "sharing": self.sharing,
            "retry_window": self.retry_window,
            **{name: getattr(self, name) for name in self._given},
        }
        return CLASSPATH, {name: value for name, value in kwargs.items() if value is not None}

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """See BaseTrigger. A name that isn't there is an error, as it is in the worker, and no empty text.

        Whatever goes wrong is told as the trigger's event, naming the argument: what is raised here says less in the task's log.
        """
        from jinja2 import StrictUndefined  # noqa: PLC0415  only where there are templates

        environment = jinja_env or self.get_template_env()
        environment.undefined = StrictUndefined
        self.template_ext = ()  # of a lease's arguments none names a template's file
        names = self.template_fields
        for name in names:
            self.template_fields = (name,)  # one at a time, to know which is broken
            try:
                super().render_template_fields(context, environment)
            except Exception as error:  # noqa: BLE001  a template may divide by zero
                problem = f"its template can't be rendered ({type(error).__name__}: {error})"
                self._broken = request.InvalidArgument(name, problem, "use what a task's context has, or a plain value")
                break
        self.template_fields = names

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """See BaseTrigger."""
        try:
            if self._broken is not None:
                raise self._broken
            async with shared_broker(self.conn_id) as broker:
                lease = await self._lease(broker)
                self._found = lease.name
                teller = Teller(self.log)
                async with aclosing(lease.progress()) as changes:
                    async for change in changes:
                        teller.tell(change)
        except (AirflowNotFoundException, SparkbrokerError, request.InvalidArgument) as error:
            event = failures.payload(error, conn_id=self.conn_id, lease=self._found)
        else:
            event = {"lease": self._found}
        yield TriggerEvent(event)  # outside of the block: whoever takes the event may never come back for more

    async def on_kill(self) -> None:
        """The user has ended the task: so does its lease, unless it was there before and others may be using it.

        One that was being asked for at that moment was given back by the client, whose call was cancelled.
        """
        if self.lease is None and self._found:
            await _to_its_end(self._give_back())

    async def _give_back(self) -> None:
        async with asyncio.timeout(_KILL_TIMEOUT), shared_broker(self.conn_id) as broker:
            await broker.release(self._found, "the task was ended while it waited")
        self.log.info("%s is released: the task was ended while it waited", self._found)

    async def _lease(self, broker: "AsyncBroker") -> "AsyncLease":
        """The one that exists, or the one that is this try's, however often it is asked for."""
        if self.lease is not None:
            return await broker.open(self.lease)
        ask = self._ask()
        for _ in range(_MOST_ASKS):
            try:
                lease = await broker.acquire(**request.client_ask(ask))
            except LeaseKeyInUse as error:
                existing = await broker.get(error.metadata["lease"])
                another = identity.after_conflict(ask, existing.spec.labels)
                if another is None:
                    raise
                ask = another
                continue
            if lease.live:
                break
            # The answer of long ago, before the triggerer was away for too long, or the task was cleared.
            ask = {**ask, "request_id": identity.next_request_id(ask["request_id"], lease.name)}
        return lease

    def _ask(self) -> dict[str, Any]:
        if self.ask is not None:
            return self.ask
        arguments = {name: getattr(self, name) for name in self._given}
        who = identity.TaskIdentity.of(self.task_instance)
        return identity.complete_ask(
            request.ask(arguments),
            who,
            options=request.options(arguments),
            sharing=self.sharing,
            retry_window=self.retry_window,
            request_id=who.request_id(),
        )


_ending: Final[set[asyncio.Task[None]]] = set()
"""What ``_to_its_end`` has begun: the loop itself holds no task."""


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work, however often that is cancelled: once a second, Airflow cancels a trigger again whose ``on_kill`` runs.

    The cancellation is raised when it is done.
    """
    task = asyncio.create_task(work, name="sparkbroker-give-back")  # noqa: TID251  bounded, awaited, and held by _ending
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


@dataclass(slots=True)
class _Shared:
    broker: "AsyncBroker"
    users: int = 0


_shared: Final[dict[tuple[asyncio.AbstractEventLoop, "Address", float], _Shared]] = {}
"""One client, and so one gRPC channel, for all triggers of a process that use the same connection."""


def _client() -> "type[AsyncBroker]":
    """It brings gRPC: not while a DAG is parsed, and not in the triggerer's event loop, which it would hold up."""
    from sparkbroker.client import AsyncBroker  # noqa: PLC0415

    return AsyncBroker


@asynccontextmanager
async def shared_broker(conn_id: str) -> "AsyncIterator[AsyncBroker]":
    """The client that this event loop's triggers share; closed when its last user has gone."""
    client = await asyncio.to_thread(_client)
    settings = await SparkBrokerHook(conn_id).asettings()
    key = (asyncio.get_running_loop(), settings.address, settings.patience)
    shared = _shared.get(key)
    if shared is None:
        shared = _shared[key] = _Shared(client(settings.address, patience=settings.patience))
    shared.users += 1
    try:
        yield shared.broker
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[key]
            await shared.broker.close()
