"""What to do next about one driver, from what is recorded and what is seen. Level-triggered: no history is needed.

"Not seen" is not "dead": an observation that a provisioner could not make never reaches this page; ABSENT and EXITED
are confirmations.
"""

from typing import Final, assert_never

import msgspec

from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.domain.lease.driver import Driver, DriverExit, DriverState
from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.units import Seconds, ServingTime

STARTING_POLL: Final = Seconds(0.5)
READY_POLL: Final = Seconds(10.0)
STOPPING_POLL: Final = Seconds(0.25)
STOP_GRACE: Final = Seconds(10.0)
"""How long a driver may take to end before it is ended without mercy."""


class Create(msgspec.Struct, frozen=True):
    """Make it, or adopt what exists under its id."""


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do but to look again."""

    after: Seconds


class BecomeReady(msgspec.Struct, frozen=True):
    """A Connect call with its token has succeeded."""


class EndSessions(msgspec.Struct, frozen=True):
    """End the Spark sessions of attachments that are gone."""

    sessions: tuple[str, ...]


class Stop(msgspec.Struct, frozen=True):
    """It is of no use any more: end it. ``exit`` if it ended by itself; ``misconfigured``: another attempt would fail, too."""

    message: str
    exit: DriverExit | None = None
    misconfigured: bool = False


class Delete(msgspec.Struct, frozen=True):
    """Ask (again) for its end."""

    force: bool


class Gone(msgspec.Struct, frozen=True):
    """It is confirmed gone: its capacity is free."""

    exit: DriverExit | None = None


Step = Create | Wait | BecomeReady | EndSessions | Stop | Delete | Gone


def next_step(driver: Driver, seen: Observation | None, now: ServingTime) -> Step:
    """The one next step: Gone only after a confirmation (promise 5). ``seen`` None: it was not looked at (a PENDING driver needs
    no look)."""
    match driver.state:
        case DriverState.PENDING:
            return Create()
        case DriverState.STARTING:
            return _starting(driver, _looked(seen), now)
        case DriverState.READY:
            return _ready(driver, _looked(seen))
        case DriverState.STOPPING:
            return _stopping(driver, _looked(seen), now)
        case DriverState.GONE:
            return Wait(READY_POLL)
        case _:
            assert_never(driver.state)


def after_failure(driver: Driver, error: ProvisionerFailed, now: ServingTime) -> Stop | None:
    """What follows from a call about this driver that failed. None: the call is tried again.

    It ends an attempt only while the driver is being made: where the failure is for good, or has lasted for too long.
    """
    if driver.state not in (DriverState.PENDING, DriverState.STARTING):
        return None
    if error.retryable and now < driver.start_deadline:
        return None
    return Stop(error.message, misconfigured=error.misconfigured)


def look_again(step: Step, driver: Driver, seen: Observation | None) -> Seconds | None:
    """After how many seconds to look at the driver again, once the step is taken. None: never by itself."""
    match step:
        case Create():
            starts = driver.state is DriverState.STARTING and seen is not None and seen.phase is Phase.STARTING
            return STARTING_POLL if starts else Seconds(0.0)
        case Wait(after):
            return after
        case BecomeReady() | EndSessions():
            return READY_POLL
        case Stop():
            return Seconds(0.0)
        case Delete():
            return STOPPING_POLL
        case Gone():
            return None
        case _:
            assert_never(step)


def _looked(seen: Observation | None) -> Observation:
    if seen is None:
        raise ValueError("only a PENDING driver can be decided without an observation")
    return seen


def _starting(driver: Driver, seen: Observation, now: ServingTime) -> Step:
    match seen.phase:
        case Phase.READY:
            return BecomeReady()
        case Phase.EXITED:
            return Stop(f"the driver ended while it started: {_how(seen)}{_because(seen)}", seen.exit)
        case Phase.ABSENT:
            return Stop(f"the driver disappeared while it started{_because(seen)}", seen.exit)
        case Phase.STOPPING if seen.exit is not None:
            return Stop(f"the driver ended while it started: {_how(seen)}{_because(seen)}", seen.exit)
        case Phase.STARTING | Phase.PORT_OPEN | Phase.STOPPING:
            if now >= driver.start_deadline:
                what = "its port did not open" if seen.phase is Phase.STARTING else "it did not answer"
                return Stop(f"the driver was not ready in time: {what}{_because(seen)}")
            return Wait(Seconds(min(STARTING_POLL, max(0.01, driver.start_deadline - now))))
        case _:
            assert_never(seen.phase)


def _ready(driver: Driver, seen: Observation) -> Step:
    match seen.phase:
        case Phase.EXITED:
            return Stop(f"the driver ended: {_how(seen)}{_because(seen)}", seen.exit)
        case Phase.ABSENT:
            return Stop(f"the driver disappeared{_because(seen)}", seen.exit)
        case Phase.STOPPING if seen.exit is not None:
            # Lost for good, though something of it still exists and is charged.
            return Stop(f"the driver ended: {_how(seen)}{_because(seen)}", seen.exit)
        case Phase.READY if driver.ending_sessions:
            return EndSessions(driver.ending_sessions)
        # It ran and doesn't answer (stopped, swapped out, busy): a doubt, and no verdict.
        case Phase.READY | Phase.STARTING | Phase.PORT_OPEN | Phase.STOPPING:
            return Wait(READY_POLL)
        case _:
            assert_never(seen.phase)


def _stopping(driver: Driver, seen: Observation, now: ServingTime) -> Step:
    if seen.phase in (Phase.ABSENT, Phase.EXITED):
        return Gone(seen.exit)
    requested = driver.stop_requested
    return Delete(force=requested is not None and now >= requested + STOP_GRACE)


def _how(seen: Observation) -> str:
    return seen.exit.describe() if seen.exit else "an unknown exit status"


def _because(seen: Observation) -> str:
    return f" ({seen.message})" if seen.message else ""
