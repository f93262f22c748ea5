"""Resident memory of a broker over 200,000 acquire-release cycles, once what it keeps has reached its limits.

It keeps 1,000 leases that have ended, 10,000 events, and answers for five seconds, so that the limits are reached early.

    python benchmarks/memory.py [--quick] [--cycles 200000] [--clients 64]
"""

import argparse
import asyncio
import time

import h2_load
from servers import broker, load, resident_bytes, row, temporary_folder
from throughput import broker_work

MIB = 1 << 20
STORE = """
terminal_count = 1000
event_count = 10000
request_age = "5s"
"""
LEASES = """
ttl = "5s"
wait_ttl = "5s"
"""


async def cycles(port: int, clients: int, count: int, work: h2_load.Work) -> float:
    """So many, spread over the clients. Returns how many there were in a second."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()

    async def client() -> None:
        _, connection = await loop.create_connection(h2_load.Connection, "127.0.0.1", port)
        try:
            for _ in range(count // clients):
                await work(connection)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cycles")
    parser.add_argument("--cycles", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    step = arguments.cycles // (80 if arguments.quick else 8)
    with temporary_folder() as folder, broker(folder, store=STORE, leases=LEASES) as served:
        work = broker_work(served.headers)
        seen = []
        for number in range(1, 9):
            rate = asyncio.run(cycles(served.port, arguments.clients, step, work))
            seen.append(resident_bytes(served.pid) / MIB)
            print(f"after {number * step:>9,} cycles ({rate:,.0f}/s): {seen[-1]:.1f} MiB", flush=True)
    halfway = seen[3]
    what = f"RSS after {8 * step:,} acquire-release cycles"
    row(what, f"{seen[-1]:.1f} MiB", f"after half of them {halfway:.1f} MiB", f"{seen[-1] / halfway:.2f}", "flat")
    print(load())


if __name__ == "__main__":
    main()
