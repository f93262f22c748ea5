"""When each phase of a lease began, and what they are called. Pure."""

from typing import Final

import msgspec

from sparkbroker.broker.domain.lease.observation import Observation
from sparkbroker.broker.domain.units import WallTime

CREATING: Final = "the driver is being created"
STARTING: Final = "its process runs; Spark is starting in it"
ANSWERING: Final = "its port is open; the first call to it is under way"


class Timings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When each phase began, in their order. A further attempt overwrites admitted and what follows.

    ``pod_scheduled`` and ``sandbox_ready``: of a driver that is a pod of the broker's, as far as its cluster tells.
    """

    queued: WallTime
    admitted: WallTime | None = None
    pod_scheduled: WallTime | None = None
    sandbox_ready: WallTime | None = None
    process_started: WallTime | None = None
    port_open: WallTime | None = None
    ready: WallTime | None = None
    releasing: WallTime | None = None
    ended: WallTime | None = None


def seen_starting(timings: Timings, seen: Observation) -> Timings:
    """With what is seen of its driver's start.

    Whose clock tells whole seconds, or is behind, puts no phase before the one that came first. What was told of a pod's
    way to its process stays: its last state may no longer hold it.
    """
    names = ("pod_scheduled", "sandbox_ready", "process_started", "port_open")
    moments = (
        timings.pod_scheduled if seen.pod_scheduled is None else seen.pod_scheduled,
        timings.sandbox_ready if seen.sandbox_ready is None else seen.sandbox_ready,
        seen.process_started,
        seen.port_open,
    )
    changes: dict[str, WallTime | None] = {}
    latest = timings.admitted if timings.admitted is not None else timings.queued
    for name, moment in zip(names, moments, strict=True):
        latest = latest if moment is None else max(latest, moment)
        changes[name] = None if moment is None else latest
    return msgspec.structs.replace(timings, **changes)


def durations(timings: Timings) -> dict[str, float]:
    """Seconds of each phase of a start that has a beginning and an end. ``schedule``, ``sandbox`` and ``pull`` are parts of
    ``process_start``; ``ready`` is all of it, the time in the queue included."""
    spans = {
        "process_start": (timings.admitted, timings.process_started),
        "schedule": (timings.admitted, timings.pod_scheduled),
        "sandbox": (timings.pod_scheduled, timings.sandbox_ready),
        "pull": (timings.sandbox_ready, timings.process_started),
        "port_open": (timings.process_started, timings.port_open),
        "connect": (timings.port_open, timings.ready),
        "ready": (timings.queued, timings.ready),
    }
    return {
        name: max(0.0, over - begun) for name, (begun, over) in spans.items() if begun is not None and over is not None
    }


def starting(timings: Timings) -> str:
    """How far a start is, for people."""
    if timings.port_open is not None:
        return ANSWERING
    return CREATING if timings.process_started is None else STARTING
