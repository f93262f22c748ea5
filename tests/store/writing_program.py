"""A broker's store under load, as a process of its own to be killed and starved: ``writing_program.py MODE FOLDER``.

Each batch has two rows, an update of a counter row, and an event; what is acknowledged is printed, line by line.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from sparkbroker.broker.adapters.sql_store import SqlStore, StateFolder
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime
from sparkbroker.broker.ports.store import (
    Batch,
    Committed,
    EventRecord,
    RowImage,
    RowKind,
    Store,
    StoreUnusable,
    Unknown,
)

BALLAST = 256 << 10


def tell(**fact: object) -> None:
    print(json.dumps(fact), flush=True)  # noqa: T201 - its output is what it is for


def batch(number: int, size: int) -> Batch:
    def row(name: str, expected: int = 0) -> RowImage:
        body = json.dumps({"number": number, "filler": "x" * size}).encode()
        return RowImage(RowKind.LEASE, name, Revision(number), Revision(expected), body)

    return Batch(
        revision=Revision(number),
        serving=ServingTime(float(number)),
        rows=(row(f"{number}-first"), row("counter", number - 1), row(f"{number}-second")),
        events=(EventRecord(Revision(number), "counter", b'{"filler":"%s"}' % (b"y" * size)),),
    )


async def contents(store: Store) -> dict[str, object]:
    loaded = await store.load()
    return {
        "revision": loaded.revision,
        "serving": loaded.serving,
        "rows": {row.id: [row.revision, json.loads(row.body)["number"]] for row in loaded.rows},
        "events": [revision async for revision in revisions(store)],
    }


async def revisions(store: Store) -> AsyncIterator[Revision]:
    """Those of all events. A page ends at so many bytes."""
    last = Revision(0)
    while page := (await store.events(last, 1_000_000)).events:
        for event in page:
            yield event.revision
        last = page[-1].revision


async def write(store: Store, epoch: Epoch, size: int) -> None:
    """Until a commit isn't acknowledged; then try two more, which may not succeed either."""
    begin = (await store.load()).revision + 1
    for number in itertools.count(begin):
        result = await store.commit(epoch, batch(number, size))
        if isinstance(result, Committed):
            tell(acknowledged=number)
            continue
        tell(refused=type(result).__name__, message=result.message)
        for further in (number, number + 1):
            assert isinstance(await store.commit(epoch, batch(further, 1)), Unknown)
        return


async def load_and_write(folder: Path, size: int) -> None:
    state = StateFolder(folder, ballast_size=0)
    store = SqlStore(state.database)
    try:
        with state:
            epoch = await store.lead()
            tell(leading=epoch)
            await write(store, epoch, size)
            await store.close()
    except StoreUnusable as error:
        tell(unusable=error.message)
        await store.close()


async def show(folder: Path) -> None:
    with StateFolder(folder, ballast_size=0) as state:
        store = SqlStore(state.database)
        await store.lead()
        tell(**await contents(store))
        await store.close()


async def fill_disk(folder: Path) -> None:
    """``folder`` is a small file system of its own."""
    mark = folder / "filler"
    mark.write_bytes(b"z" * (64 << 10))
    with StateFolder(folder / "state", ballast_size=BALLAST) as state:
        tell(ballast=state.ballast.held)
        store = SqlStore(state.database, ballast=state.ballast)
        await write(store, await store.lead(), 4000)
        await store.close()
        tell(ballast=state.ballast.held)
        while True:  # to the last byte
            try:
                with mark.open("ab", buffering=0) as file:
                    file.write(b"z" * 512)
            except OSError:
                break
        await attempt_to_lead(folder / "other.db")
        try:
            StateFolder(folder / "other", ballast_size=BALLAST).open()
        except StoreUnusable as error:
            tell(unusable=error.message)
        mark.unlink()
        store = SqlStore(state.database, ballast=state.ballast)
        await store.lead()
        tell(**await contents(store))
        await store.close()


async def end_on_full_disk(folder: Path) -> None:
    """``folder`` is a small file system of its own, which others fill to the last byte as soon as there is one: a thousand
    rows get smaller all the same, and a broker can start."""
    filler = folder / "filler"
    with StateFolder(folder / "state", ballast_size=24 << 20) as state:
        store = SqlStore(state.database, ballast=state.ballast)
        epoch = await store.lead()
        large = tuple(image(f"r{n}", n, 0, b'"' + b"x" * 100_000 + b'"') for n in range(1, 101))
        assert isinstance(
            await store.commit(epoch, Batch(revision=Revision(100), serving=ServingTime(1.0), rows=large)), Committed
        )
        last = {row.id: row.revision for row in large}
        for number in range(101, 1101):
            if number % 50 == 1:
                fill_up(filler)
            name = f"r{number % 100 + 1}"
            told = EventRecord(Revision(number), name, b'{"message":"%s"}' % (b"y" * 500))
            changed = image(name, number, last[name], b'"small"')
            last[name] = Revision(number)
            ended = Batch(revision=Revision(number), serving=ServingTime(1.0), rows=(changed,), events=(told,))
            result = await store.commit(epoch, ended)
            assert isinstance(result, Committed), result
        tell(left=state.ballast.held, full=await store.room())
        fill_up(filler)
        # As after a kill: the store is not closed.
        again = SqlStore(state.database, ballast=state.ballast)
        await again.lead()
        loaded = await again.load()
        tell(revision=loaded.revision, sizes=sorted({len(row.body) for row in loaded.rows}), left=state.ballast.held)
        await again.close()


def image(name: str, revision: int, expected: int, body: bytes) -> RowImage:
    return RowImage(RowKind.LEASE, name, Revision(revision), Revision(expected), body)


def fill_up(filler: Path) -> None:
    for size in (1 << 20, 512):
        try:
            with filler.open("ab", buffering=0) as file:
                while file.write(b"z" * size) == size:
                    pass
        except OSError:
            pass


async def room(folder: Path) -> None:
    """``folder`` is a small file system of its own: it gets full, and has room again."""
    filler = folder / "filler"
    filler.write_bytes(b"z" * (3 << 20))
    with StateFolder(folder / "state", ballast_size=1 << 20) as state:
        store = SqlStore(state.database, ballast=state.ballast)
        epoch = await store.lead()
        for number in itertools.count(1):
            if why := await store.room():
                break
            assert isinstance(await store.commit(epoch, batch(number, 4000)), Committed)
        tell(full=why, use=await store.room(to_use=True), ballast=state.ballast.held, again=await store.room())
        while not (scarce := await store.room(to_use=True)):
            assert isinstance(await store.commit(epoch, batch(number, 4000)), Committed)
            number += 1
        tell(full=await store.room(), use=scarce, ballast=state.ballast.held)
        await store.close()
        fill_up(filler)  # what the close has freed
        os.truncate(filler, filler.stat().st_size - (640 << 10))  # enough to go on with
        again = SqlStore(state.database, ballast=state.ballast)
        epoch = await again.lead()
        tell(full=await again.room(), ballast=state.ballast.held)
        assert isinstance(await again.commit(epoch, batch(number, 1)), Committed)
        filler.unlink()
        tell(full=await again.room(), ballast=state.ballast.held)
        await again.close()


async def attempt_to_lead(database: Path) -> None:
    store = SqlStore(database)
    try:
        await store.lead()
    except StoreUnusable as error:
        tell(unusable=error.message)
    else:
        tell(leading=True)
    await store.close()


async def read_only(folder: Path) -> None:
    state = StateFolder(folder / "state", ballast_size=0)
    with state:
        store = SqlStore(state.database)
        await store.lead()
        await store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)  # noqa: ASYNC221 - nothing else runs
    for path in (folder / "state", folder / "new"):
        try:
            StateFolder(path).open()
        except StoreUnusable as error:
            tell(unusable=error.message)
    await attempt_to_lead(state.database)


def main() -> None:
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "write":
        asyncio.run(load_and_write(folder, int(sys.argv[3])))
    else:
        asyncio.run(
            {"show": show, "fill": fill_disk, "room": room, "end": end_on_full_disk, "read-only": read_only}[mode](
                folder
            )
        )


if __name__ == "__main__":
    main()
