"""The phases of a lease's start: their order, their durations, their words."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sparkbroker.broker.domain.lease.observation import Observation, Phase
from sparkbroker.broker.domain.lease.timings import (
    ANSWERING,
    CREATING,
    STARTING,
    Timings,
    durations,
    seen_starting,
    starting,
)
from sparkbroker.broker.domain.units import DriverId, WallTime

PHASES = ("queued", "admitted", "pod_scheduled", "sandbox_ready", "process_started", "port_open", "ready")
SEEN = PHASES[2:6]
moments = st.none() | st.floats(0, 1e9)
observations = st.builds(
    Observation, driver_id=st.just("d"), phase=st.just(Phase.STARTING), **dict.fromkeys(SEEN, moments)
)
ADMITTED = Timings(queued=WallTime(90.0), admitted=WallTime(100.5))


def seen(**moments):
    return Observation(driver_id=DriverId("d"), phase=Phase.STARTING, **moments)


@given(st.lists(observations, max_size=4))
def test_whatever_other_clocks_say_the_phases_follow_each_other(sequence):
    timings = ADMITTED
    for seen in sequence:
        timings = seen_starting(timings, seen)
        told = [moment for name in PHASES if (moment := getattr(timings, name)) is not None]
        assert told == sorted(told)
        assert all((getattr(timings, name) is not None) >= (getattr(seen, name) is not None) for name in SEEN)


def test_whole_seconds_put_nothing_before_the_admission():
    timings = seen_starting(ADMITTED, seen(pod_scheduled=100.0, sandbox_ready=101.0))
    assert (timings.pod_scheduled, timings.sandbox_ready, timings.process_started) == (100.5, 101.0, None)


def test_what_was_told_of_a_pod_on_its_way_stays_told():
    """Its last state doesn't hold it where pull and start fall into one second."""
    timings = seen_starting(ADMITTED, seen(pod_scheduled=101.0, sandbox_ready=102.0))
    timings = seen_starting(timings, seen(pod_scheduled=101.0, process_started=102.0))
    assert (timings.sandbox_ready, timings.process_started) == (102.0, 102.0)
    # Another process than the one that ran is told.
    assert seen_starting(timings, seen()).process_started is None


def test_durations_are_told_of_phases_with_both_ends():
    whole = Timings(**{name: WallTime(2.0**number) for number, name in enumerate(PHASES)})
    assert durations(whole) == {
        "process_start": 14.0, "schedule": 2.0, "sandbox": 4.0, "pull": 8.0, "port_open": 16.0, "connect": 32.0, "ready": 63.0,
    }  # fmt: skip
    process = msgspec.structs.replace(whole, pod_scheduled=None, sandbox_ready=None)
    assert durations(process) == {"process_start": 14.0, "port_open": 16.0, "connect": 32.0, "ready": 63.0}
    assert durations(ADMITTED) == {}


def test_words_for_how_far_it_is():
    assert starting(ADMITTED) == CREATING
    assert starting(seen_starting(ADMITTED, seen(pod_scheduled=101.0, sandbox_ready=102.0))) == CREATING
    assert starting(seen_starting(ADMITTED, seen(process_started=102.0))) == STARTING
    assert starting(seen_starting(ADMITTED, seen(process_started=102.0, port_open=103.0))) == ANSWERING
