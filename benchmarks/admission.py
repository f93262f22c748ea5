"""One step of admission with 10,000 queued: find who is next, charge it or find that nothing fits.

Queues of 64 cores each over a pool of 128; one of the admitted, chosen at random, ends; steps are made until nothing
more fits; each admitted one is replaced by a new one at the end of its queue. In this process: there is no peer.

    python benchmarks/admission.py [--quick]
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Iterator

from servers import load, row

from sparkbroker.broker.domain.admission.cycle import Admission, Waiting
from sparkbroker.broker.domain.capacity.ledger import Ledger
from sparkbroker.broker.domain.capacity.queue import Queue
from sparkbroker.broker.domain.capacity.resources import MIB, Resources
from sparkbroker.broker.domain.units import LeaseId, ServingTime

GIB = 1024 * MIB
QUEUED = 10_000
SIZES = (1, 1, 2, 4, 8, 32, 64)


def leases(queues: int, mixed: bool, chance: random.Random) -> Iterator[Waiting]:
    number = 0
    while True:
        cores = chance.choice(SIZES) if mixed else 1
        memory = cores * (chance.randint(GIB // 2, 4 * GIB) if mixed else GIB)
        yield Waiting(
            lease_id=LeaseId(f"{number:08}"),
            queue=f"q{number % queues}",
            pool="local",
            amount=Resources.of(cores=cores, memory=memory),
            enqueued=ServingTime(float(number)),
        )
        number += 1


def measure(queues: int, mixed: bool, ended: int) -> list[float]:
    """CPU seconds of each step, sorted: a step never waits, so what else the machine does stays out of it."""
    chance = random.Random(1)
    quota = Resources.of(cores=64, memory=256 * GIB)
    named = {f"q{number}": Queue(name=f"q{number}", nominal=quota) for number in range(queues)}
    pools = {"local": Resources.of(cores=128, memory=512 * GIB)}
    ledger = Ledger({name: queue.nominal for name, queue in named.items()}, pools)
    admission = Admission(named)
    coming = leases(queues, mixed, chance)
    for _ in range(QUEUED):
        admission.add(next(coming))
    held: list[str] = []
    took: list[float] = []
    for _ in range(ended):
        while True:
            begun = time.thread_time()
            admitted = admission.admit_next(ledger, lambda waiting: waiting.lease_id)
            took.append(time.thread_time() - begun)
            if admitted is None:
                break
            held.append(admitted.owner)
            admission.add(next(coming))
        ledger.release(held.pop(chance.randrange(len(held))))
    ledger.check()
    return sorted(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    arguments = parser.parse_args()
    gc.collect()
    for queues in (1, 4, 20, 50, 100):
        for mixed in (False, True):
            took = measure(queues, mixed, 300 if arguments.quick else 3000)
            what = f"admission step, {QUEUED:,} queued in {queues}, {'mixed' if mixed else 'equal'} sizes"
            p99 = took[int(len(took) * 0.99)]
            row(what, f"mean {statistics.mean(took) * 1e6:.0f} us (p99 {p99 * 1e6:.0f})", "none", "", "<= 100 us")
    print(load())


if __name__ == "__main__":
    main()
