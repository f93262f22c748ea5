"""Row-writes per second of the SQLite store, by batch size, beside a bare ``sqlite3`` that writes the same.

A row-write is one lease inserted or updated together with its event; batches alternate between both. Bare: one
``executemany`` per table, no fence, no versions. Each is run alone, and with an event loop that is busy half of the time.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sparkbroker.broker.adapters.sql_store import SqlStore
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime
from sparkbroker.broker.ports.store import Batch, Committed, EventRecord, RowImage, RowKind

BODY = b'{"conf":{' + b",".join(b'"spark.key%02d":"some value"' % i for i in range(40)) + b"}}"
EVENT = b'{"state":"READY","message":"' + b"x" * 250 + b'"}'


def batches(size: int) -> Iterator[Batch]:
    revision, number = 0, 0
    while True:
        ids = [f"lease-{number + index:012}" for index in range(size)]
        number += size
        expected = [0] * size
        for _ in range(2):
            revisions = range(revision + 1, revision + size + 1)
            revision += size
            yield Batch(
                revision=Revision(revision),
                serving=ServingTime(float(revision)),
                rows=tuple(
                    RowImage(RowKind.LEASE, lease, Revision(new), Revision(old), BODY)
                    for lease, new, old in zip(ids, revisions, expected, strict=True)
                ),
                events=tuple(
                    EventRecord(Revision(new), lease, EVENT) for lease, new in zip(ids, revisions, strict=True)
                ),
            )
            expected = list(revisions)


async def busy(share: float) -> None:
    while share:
        end = time.perf_counter() + share * 0.001
        while time.perf_counter() < end:
            pass
        await asyncio.sleep((1 - share) * 0.001)


async def ours(folder: Path, size: int, seconds: float) -> float:
    store = SqlStore(folder / "ours.db")
    epoch: Epoch = await store.lead()
    written = 0
    begun = time.perf_counter()
    for batch in batches(size):
        result = await store.commit(epoch, batch)
        assert isinstance(result, Committed), result
        written += size
        if time.perf_counter() - begun > seconds:
            break
    rate = written / (time.perf_counter() - begun)
    await store.close()
    return rate


def bare(path: Path, size: int, seconds: float) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA page_size = 8192",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE rows (kind TEXT, id TEXT, revision INTEGER, body TEXT, PRIMARY KEY (kind, id))",
        "CREATE TABLE events (revision INTEGER PRIMARY KEY, subject TEXT, body TEXT)",
        "CREATE INDEX events_by_subject ON events (subject, revision)",
    ):
        connection.execute(statement)
    written = 0
    begun = time.perf_counter()
    for batch in batches(size):
        connection.execute("BEGIN IMMEDIATE")
        rows = [(row.kind.value, row.id, row.revision, BODY.decode()) for row in batch.rows]
        connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", rows)
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", [(e.revision, e.subject, EVENT.decode()) for e in batch.events]
        )
        connection.execute("COMMIT")
        written += size
        if time.perf_counter() - begun > seconds:
            break
    rate = written / (time.perf_counter() - begun)
    connection.close()
    return rate


async def measure(size: int, seconds: float, share: float) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        loop = asyncio.get_running_loop()
        load = loop.create_task(busy(share))
        theirs = await loop.run_in_executor(None, bare, Path(folder) / "bare.db", size, seconds)
        rate = await ours(Path(folder), size, seconds)
        load.cancel()
    return rate, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, alternated; the median counts")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds = 0.2, 1
    print(f"{'event loop':<12}{'batch':>6}{'store rows/s':>14}{'bare rows/s':>14}{'ratio':>8}")
    for share in (0.0, 0.5):
        for size in (1, 32, 128):
            pairs = [asyncio.run(measure(size, arguments.seconds, share)) for _ in range(arguments.rounds)]
            rate, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"{f'{share:.0%} busy':<12}{size:>6}{rate:>14,.0f}{theirs:>14,.0f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
