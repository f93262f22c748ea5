"""Attacks a broker, and says what others noticed.

    python -m tests.torture.attacks                       all of them
    python -m tests.torture.attacks headers_only          some of them
    python -m tests.torture.attacks --seconds 60          longer

Each attack meets a new broker with default settings in a control group of 1 GiB. Another principal works all the time:
before the attack (quiet), under it, and after it. A line for each attack tells the 99th percentile of her calls in the three
phases, what was refused or lost, and the broker's memory. The exit status is 1 if a bound was broken:

- under attack the 99th percentile of each kind of call is at most 5 times the quiet one (or ``FLOOR``, if that is more),
- no call of hers is refused or lost,
- the broker lives, and has less memory than its limit,
- after the attack her calls are as fast as before (the same bound).

The attacker is a process of its own with a low priority: on a network it would have a machine of its own, and what is
measured is what it does to the broker, not to the processor.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.torture.attacks import registry
from tests.torture.attacks.bystander import Bystander
from tests.torture.attacks.target import MEMORY, Target

RATIO: Final = 5.0
FLOOR: Final = 0.05
"""Seconds: a quiet broker answers within a millisecond or two, and five times that is what the processor's scheduler does."""
QUIET: Final = 10.0
LOOK: Final = 0.2
ENDING: Final = 20.0
"""Seconds that the attacker's process may take to end."""


class Phase(NamedTuple):
    """What the bystander saw in it: the 99th percentile of each call in seconds, how many there were, and failures."""

    p99: dict[str, float]
    calls: int
    failures: list[str]


class Outcome(NamedTuple):
    """Of one attack. ``memory`` is the most that the broker had, ``ended`` the broker's exit status if it has one,
    ``achieved`` what the attacker did, and ``failed`` why that was not the attack."""

    name: str
    quiet: Phase
    attacked: Phase
    after: Phase
    memory: int
    ended: int | None
    achieved: str
    failed: str

    def faults(self) -> list[str]:
        """Each bound that was broken, as a sentence. Pure."""
        found = [f"the attack itself failed: {self.failed}"] if self.failed else []
        for label, phase in (("under attack", self.attacked), ("after it", self.after)):
            for call, seconds in phase.p99.items():
                bound = max(FLOOR, RATIO * self.quiet.p99.get(call, 0.0))
                if seconds > bound:
                    found.append(f"{call} took {seconds:.3f} s {label} (p99), at most {bound:.3f} s is allowed")
            found += [f"{failure} ({label})" for failure in phase.failures[:5]]
            if not phase.calls:
                found.append(f"no call was answered {label}")
        if self.ended is not None:
            found.append(f"the broker ended with status {self.ended}")
        if self.memory >= MEMORY:
            found.append(f"the broker had {self.memory >> 20} MiB")
        return found


def summary(bystander: Bystander) -> Phase:
    """Of the calls since the last one."""
    times, failures = bystander.take()
    p99 = {
        call: statistics.quantiles(some, n=100, method="inclusive")[98] for call, some in times.items() if len(some) > 1
    }
    return Phase(p99, sum(map(len, times.values())), failures)


async def run(name: str, folder: Path, seconds: float, quiet: float = QUIET) -> Outcome:
    """One attack on a broker of its own."""
    target = Target(folder, registry.SETTINGS.get(name, {}))
    try:
        target.start()
        await target.serving()
        bystander = Bystander(target)
        async with working(bystander), watched(target):
            await asyncio.sleep(1.0)
            bystander.take()
            await asyncio.sleep(quiet)
            before = summary(bystander)
            achieved, failed = await attacked(target, name, seconds)
            under = summary(bystander)
            await asyncio.sleep(quiet)
            after = summary(bystander)
        return Outcome(name, before, under, after, target.look(), target.ended, achieved, failed)
    finally:
        target.close()


async def attacked(target: Target, name: str, seconds: float) -> tuple[str, str]:
    """Attack for this long. Return what the attacker achieved, and why it didn't if its process ended before, or couldn't."""
    command = [
        "nice",
        "-n",
        "10",
        sys.executable,
        "-m",
        "tests.torture.attacks.registry",
        name,
        str(target.folder),
        str(target.port),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, str(target.metrics_port), str(target.pid), *(f"{who}={token}" for who, token in target.tokens.items()),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), seconds)
    early = process.returncode is not None
    if not early:
        process.terminate()
    try:
        said, _ = await asyncio.wait_for(process.communicate(), ENDING)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "", f"it did not end within {ENDING:g} s"
    text = said.decode(errors="replace").strip()
    if early or process.returncode:
        return "", f"it ended with status {process.returncode}: {text[-500:]}"
    return text, "" if text != "nothing" else "it achieved nothing"


@contextlib.asynccontextmanager
async def working(bystander: Bystander) -> AsyncIterator[None]:
    """She works as long as the block runs; an error of hers ends it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bystander.work(), name="bystander")
        yield
        task.cancel()


@contextlib.asynccontextmanager
async def watched(target: Target) -> AsyncIterator[None]:
    """The broker's memory is looked at as long as the block runs."""

    async def look() -> None:
        while True:
            target.look()
            await asyncio.sleep(LOOK)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(look(), name="memory")
        yield
        task.cancel()


def line(outcome: Outcome) -> str:
    """Of the table."""

    def worst(phase: Phase) -> str:
        shared = [phase.p99[call] / outcome.quiet.p99[call] for call in phase.p99 if outcome.quiet.p99.get(call)]
        return f"{max(shared, default=0):6.1f}x" if shared else "      -"

    quiet = max((seconds for call, seconds in outcome.quiet.p99.items() if call != "start"), default=0.0)
    refused = len(outcome.attacked.failures) + len(outcome.after.failures)
    return (
        f"{outcome.name:24} {quiet * 1000:8.1f} ms {worst(outcome.attacked)} {worst(outcome.after)} {refused:8} "
        f"{outcome.attacked.calls:7} {outcome.memory >> 20:6} MiB  {'BROKEN' if outcome.faults() else 'holds'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ATTACK", help=f"of: {', '.join(registry.ATTACKS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each attack lasts (20)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(registry.ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    print(
        f"{'attack':24} {'quiet p99':>11} {'under':>7} {'after':>7} {'refused':>8} {'calls':>7} {'memory':>10}",
        flush=True,
    )
    broken = False
    for name in options.names or registry.ATTACKS:
        with tempfile.TemporaryDirectory(prefix="sb-", ignore_cleanup_errors=True) as folder:
            outcome = asyncio.run(run(name, Path(folder), options.seconds))
        print(line(outcome), flush=True)
        print(f"    {outcome.achieved}", flush=True)
        for fault in outcome.faults():
            print(f"    {fault}", flush=True)
        broken = broken or bool(outcome.faults())
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
