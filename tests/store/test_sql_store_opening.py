"""What a SQLite store finds when it opens: each case is a sentence that says what to do."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sparkbroker.broker.adapters.sql_store import SqlStore, _schema
from sparkbroker.broker.adapters.sql_store._statements import LOAD_ROWS, UPDATE_ROWS
from sparkbroker.broker.domain.units import Epoch, Revision, ServingTime
from sparkbroker.broker.ports.store import (
    Batch,
    Committed,
    Deposed,
    EventRecord,
    RowImage,
    RowKind,
    StoreUnusable,
    Unknown,
)


def full_batch(rows: int = 300) -> Batch:
    revisions = [Revision(number) for number in range(1, rows + 1)]
    return Batch(
        revision=revisions[-1],
        serving=ServingTime(1.0),
        rows=tuple(
            RowImage(RowKind.LEASE, f"lease-{n}", n, Revision(0), b'{"x":"%s"}' % (b"x" * 900)) for n in revisions
        ),
        events=tuple(EventRecord(n, f"lease-{n}", b'{"y":"%s"}' % (b"y" * 900)) for n in revisions),
    )


async def filled(path: Path) -> None:
    store = SqlStore(path)
    epoch = await store.lead()
    assert isinstance(await store.commit(epoch, full_batch()), Committed)
    await store.close()


async def refusal(path: Path) -> str:
    store = SqlStore(path)
    with pytest.raises(StoreUnusable) as caught:
        await store.lead()
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, sqlite3.Error)
    await store.close()
    return caught.value.message


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    await filled(tmp_path / "broker.db")
    return tmp_path / "broker.db"


async def test_a_clean_close_leaves_one_file(path):
    assert [found.name for found in path.parent.iterdir()] == ["broker.db"]


async def test_an_operator_can_read_it(path):
    with closing(sqlite3.connect(path)) as connection:
        (length,) = connection.execute("SELECT length(body ->> 'x') FROM rows WHERE id = 'lease-7'").fetchone()
    assert length == 900


async def test_a_newer_schema_is_refused(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0107'")
    before = path.read_bytes()
    message = await refusal(path)
    assert f"made by a newer sparkbroker (schema 0107; this one knows {_schema.HEAD})" in message
    assert path.read_bytes() == before


async def test_a_schema_without_a_valid_revision_is_refused(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'abc'")
    assert "no valid schema revision" in await refusal(path)


async def test_another_program_s_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "broker.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER)")
    assert "another program's database" in await refusal(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("moz_places",)]


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "broker.db"
    path.write_bytes(b"not a database at all" * 1000)
    assert "is not a database" in await refusal(path)
    assert path.read_bytes() == b"not a database at all" * 1000


async def test_a_missing_folder_is_said(tmp_path):
    assert f"{tmp_path / 'none'} doesn't exist; create that" in await refusal(tmp_path / "none" / "broker.db")


async def test_a_damaged_head_is_refused(path):
    with path.open("r+b") as file:
        file.write(b"\xff" * 64)
    assert "is not a database, or its head is damaged" in await refusal(path)


@pytest.mark.parametrize("table", ["rows", "requests", "meta", "alembic_version"])
async def test_a_damaged_page_is_found_before_it_is_served(path, table):
    damage(path, table)
    store = SqlStore(path)

    async def recover() -> None:
        await store.lead()
        await store.load()
        await store.answered(0, 10)

    with pytest.raises(StoreUnusable, match=r"is damaged .*; restore it from a backup"):
        await recover()
    await store.close()


async def test_a_damaged_event_is_found_when_it_is_read(path):
    damage(path, "events")
    store = SqlStore(path)
    await store.lead()
    with pytest.raises(StoreUnusable, match="is damaged"):
        await store.events(Revision(0), 1000)
    await store.close()


async def test_a_commit_that_meets_damage_is_unknown_and_the_last(path):
    damage(path, "events")
    store = SqlStore(path)
    epoch = await store.lead()
    wanted = Batch(revision=Revision(400), serving=ServingTime(2.0), events=(EventRecord(Revision(400), "a", b"{}"),))
    result = await store.commit(epoch, wanted)
    assert isinstance(result, Unknown)
    assert "check the disk" in result.message
    assert await store.commit(epoch, Batch(revision=Revision(400), serving=ServingTime(2.0))) == result
    with pytest.raises(StoreUnusable, match="check the disk"):
        await store.lead()
    await store.close()


def damage(path: Path, table: str) -> None:
    """Overwrite the table's root page."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * _schema.PAGE_SIZE)
        file.write(b"\xa5" * _schema.PAGE_SIZE)


async def test_a_locked_database_is_a_commit_of_unknown_result(path, monkeypatch):
    monkeypatch.setattr("sparkbroker.broker.adapters.sql_store._sqlite.BUSY_TIMEOUT", 0.05)
    store = SqlStore(path)
    epoch = await store.lead()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = await store.commit(epoch, Batch(revision=Revision(301), serving=ServingTime(2.0)))
        assert isinstance(result, Unknown)
        assert "database is locked" in result.message
        another = SqlStore(path)
        with pytest.raises(StoreUnusable, match="another process holds"):
            await another.lead()
        await another.close()
        other.execute("ROLLBACK")
    await store.close()


def schema_of(path: Path) -> tuple[list[tuple[str, str]], list[tuple[object, ...]], int]:
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' ORDER BY name"
        ).fetchall()
        rows = [*connection.execute("SELECT * FROM alembic_version"), *connection.execute("SELECT * FROM meta")]
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
    return tables, rows, mark


async def test_migrations_and_a_new_database_make_the_same_schema(tmp_path):
    migrated, created = tmp_path / "100% migrated.db", tmp_path / "created.db"
    _schema.migrate(migrated)
    with closing(sqlite3.connect(created, isolation_level=None)) as connection:
        _schema.prepare(connection, created)
    assert schema_of(migrated) == schema_of(created)
    assert schema_of(created)[1] == [(_schema.HEAD,), (0, 0, 0.0, 0)]
    store = SqlStore(migrated)
    assert await store.lead() == 1
    await store.close()


def test_the_head_is_alembic_s():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(_schema.__file__).parent / "migrations"))
    assert scripts.get_current_head() == _schema.HEAD
    assert all(script.revision.isdecimal() for script in scripts.walk_revisions())


async def test_a_schema_that_no_migration_leads_on_from_is_refused_and_named(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    store = SqlStore(path)
    with pytest.raises(StoreUnusable, match=f"can't be migrated to schema {_schema.HEAD}: .*0000"):
        await store.lead()
    await store.close()


def old_lease(name: str, state: str, ended: float | None, spec: dict[str, object]) -> str:
    timings = {"queued": 1.0, "ended": ended}
    return msgspec.json.encode({"id": name, "state": state, "timings": timings, "spec": spec}).decode()


def driver_of(lease: str, *, gone: bool) -> str:
    return msgspec.json.encode({"lease_id": lease, "state": "GONE" if gone else "READY"}).decode()


async def test_a_database_of_the_first_schema_has_its_specs_moved_and_its_excess_forgotten(path):
    """Of 20 ended leases with 8 MiB of spec each, the 7 that ended last are kept, and one with a driver; none that lives goes."""
    large = [{"conf": {"a": f"{n:02}" + "x" * (8 << 20)}} for n in range(20)]
    rows = [("lease", f"old-{n}", old_lease(f"old-{n}", "FAILED", float(n), large[n])) for n in range(20)]
    rows += [("lease", f"live-{n}", old_lease(f"live-{n}", "READY", None, {"conf": {}})) for n in range(3)]
    rows += [("driver", f"d{n}", driver_of(f"old-{n}", gone=n != 2)) for n in range(5)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM rows")
        connection.executemany("INSERT INTO rows (kind, id, revision, body) VALUES (?, ?, 7, ?)", rows)
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    before = path.stat().st_size
    store = SqlStore(path)
    await store.lead()
    loaded = await store.load()
    found = {
        kind: {row.id: msgspec.json.decode(row.body) for row in loaded.rows if row.kind is kind} for kind in RowKind
    }
    kept = {f"old-{n}": n for n in (2, *range(13, 20))}
    assert set(found[RowKind.LEASE]) == {*kept, "live-0", "live-1", "live-2"}
    assert set(found[RowKind.DRIVER]) == {"d2"}
    specs = found[RowKind.SPEC]
    assert len(specs) == len(kept) + 1, "equal ones are one"
    for name, lease in found[RowKind.LEASE].items():
        assert "spec" not in lease
        assert specs[lease["spec_id"]] == (large[kept[name]] if name in kept else {"conf": {}})
    assert {row.revision for row in loaded.rows} == {7}
    assert path.stat().st_size < before * 0.6, "the file is rewritten"
    await store.close()


def test_migrations_are_imported_only_when_they_are_needed(tmp_path):
    program = """
import asyncio, pathlib, sys
from sparkbroker.broker.adapters.sql_store import SqlStore
async def main():
    for _ in range(2):
        store = SqlStore(pathlib.Path(sys.argv[1]))
        await store.lead()
        await store.close()
asyncio.run(main())
assert not {"alembic", "sqlalchemy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "broker.db")], check=True, timeout=30)


async def test_a_copy_taken_while_it_runs_opens(path, tmp_path):
    """The file and its WAL, copied in between two commits: as after a kill."""
    store = SqlStore(path)
    epoch = await store.lead()
    wanted = Batch(revision=Revision(301), serving=ServingTime(5.0), rows=(row_image("late", 301),))
    assert isinstance(await store.commit(epoch, wanted), Committed)
    (tmp_path / "copy").mkdir()
    for name in ("broker.db", "broker.db-wal"):
        shutil.copy(path.parent / name, tmp_path / "copy" / name)
    copy = SqlStore(tmp_path / "copy" / "broker.db")
    assert await copy.lead() == epoch + 1
    loaded = await copy.load()
    assert (loaded.revision, loaded.serving, len(loaded.rows)) == (301, 5.0, 301)
    await asyncio.gather(store.close(), copy.close())


async def test_the_wal_is_moved_into_the_database_while_it_runs(path):
    store = SqlStore(path)
    epoch = await store.lead()
    before = path.stat().st_size
    for revision in range(301, 341):
        body = b'{"z":"%s"}' % (b"z" * 500_000)
        image = RowImage(RowKind.LEASE, f"big-{revision}", Revision(revision), Revision(0), body)
        wanted = Batch(revision=Revision(revision), serving=ServingTime(2.0), rows=(image,))
        assert isinstance(await store.commit(epoch, wanted), Committed)
    await store.load()  # whatever follows the last commit in its thread has happened
    assert path.stat().st_size > before + 15_000_000
    await store.close()


async def test_a_batch_that_cannot_be_stored_is_refused_whole_and_the_next_one_works(path):
    store = SqlStore(path)
    epoch = await store.lead()
    for bad in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match=r"U\+0000|surrogate"):
            await store.commit(
                epoch,
                Batch(
                    revision=Revision(302), serving=ServingTime(2.0), rows=(row_image("n", 301), row_image(bad, 302))
                ),
            )
    assert (await store.load()).revision == 300
    assert isinstance(await store.commit(epoch, Batch(revision=Revision(301), serving=ServingTime(2.0))), Committed)
    assert isinstance(
        await store.commit(Epoch(epoch + 1), Batch(revision=Revision(301), serving=ServingTime(2.0))), Deposed
    )
    await store.close()


def row_image(name: str, revision: int) -> RowImage:
    return RowImage(RowKind.LEASE, name, Revision(revision), Revision(0), b"{}")


async def test_updates_find_rows_by_key_and_loading_sorts_nothing(path):
    """Else a commit would read the whole table, and recovery would sort it."""
    with closing(sqlite3.connect(path)) as connection:
        update = "\n".join(str(step) for step in connection.execute(f"EXPLAIN QUERY PLAN {UPDATE_ROWS}", ("[]", b"")))
        load = "\n".join(str(step) for step in connection.execute(f"EXPLAIN QUERY PLAN {LOAD_ROWS}"))
    assert "SEARCH rows USING INDEX" in update
    assert "SCAN rows" not in update
    assert "TEMP B-TREE" not in load
