"""One writer in one thread: whole transactions, whoever is cancelled, rude or in the way."""

import asyncio
import inspect
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path

import aiosqlite
import pytest
from stores import ONE, count, insert, opened, rows

from syncd.core.patch import Patch
from syncd.store import Store, StoreBusy, StoreFull, StoreUnavailable, read
from syncd.store.watch import ALERT_S, changes


@pytest.fixture
async def impatient(store: Store) -> Store:
    """The store, waiting hardly at all for a lock."""
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 50"))
    return store


RUDE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def rude_producer(path: Path) -> Iterator[None]:
    """Another process that holds the write lock until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", RUDE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()


# Somebody else in the way


async def test_a_lock_that_is_held_too_long_is_told_and_works_again_when_it_is_gone(
    impatient: Store,
) -> None:
    with rude_producer(impatient.path), pytest.raises(StoreBusy) as busy:
        await impatient.accept(ONE)

    assert isinstance(busy.value, StoreUnavailable)
    assert str(busy.value).startswith(f"{impatient.path}: locked by another process")
    assert count(impatient) == 0
    await impatient.accept(ONE)
    assert count(impatient) == 1


async def test_a_lock_that_is_held_for_a_moment_is_waited_for(store: Store) -> None:
    with rude_producer(store.path):
        waiting = asyncio.create_task(store.accept(ONE))
        await store.read(lambda db: None)  # a whole turn of the other thread
        assert not waiting.done()

    assert (await waiting).accepted == 1


async def test_readers_do_not_mind_a_lock(impatient: Store) -> None:
    await impatient.accept(ONE)

    with rude_producer(impatient.path):
        assert await impatient.lane("r") is not None


async def test_producers_and_the_daemon_write_at_the_same_time(store: Store) -> None:
    def produce(name: str) -> None:
        for _ in range(20):
            insert(store.path, (name, "n", None), (name, "m", None))

    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b"):
            tasks.create_task(asyncio.to_thread(produce, name))
        for _ in range(20):
            await store.accept(ONE)

    assert count(store) == 100
    assert rows(store.path, "SELECT n FROM counters WHERE state = 'pending'") == [(100,)]


async def test_a_full_disk_is_told_and_nothing_of_the_transaction_stays(store: Store) -> None:
    limit = "PRAGMA max_page_count = 60"
    await store._writer.run(lambda db: db.execute(limit))

    with pytest.raises(StoreFull, match="free space") as full:
        await store.accept([Patch("r", "x" * 10_000) for _ in range(100)])
    before = count(store)
    await store._writer.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
    await store.accept(ONE)

    assert isinstance(full.value, StoreUnavailable)
    assert (before, count(store)) == (0, 1)


# Whole or not at all


async def test_a_transaction_that_raises_is_undone_and_the_next_one_works(store: Store) -> None:
    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await store._writer.atomic(half)

    assert count(store) == 0
    await store.accept(ONE)
    assert count(store) == 1


async def test_a_cancelled_write_is_whole(store: Store) -> None:
    """Its statements are on their way to the other thread: they are all done, or none is."""
    entered, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', '1')")
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(10)
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', '2')")

    writing = asyncio.create_task(store._writer.atomic(slow))
    await entered.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    seen_meanwhile = count(store)
    go_on.set()
    await store.accept(ONE)  # in its turn, after the cancelled one

    assert seen_meanwhile == 0
    assert [name for (name,) in rows(store.path, "SELECT name FROM outbox ORDER BY id")] == [
        *("1", "2", "n"),
    ]


async def test_a_cancelled_write_that_fails_afterwards_disturbs_nobody(store: Store) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    entered, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def failing(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', '1')")
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(10)
        raise RuntimeError("too late")

    writing = asyncio.create_task(store._writer.atomic(failing))
    await entered.wait()
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    go_on.set()
    await store.accept(ONE)

    assert complaints == []
    assert [name for (name,) in rows(store.path, "SELECT name FROM outbox")] == ["n"]


async def test_writes_take_turns_in_the_order_they_came(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        for n in range(50):
            tasks.create_task(store.accept([Patch("r", str(n)), Patch("r", str(n))]))

    assert [name for (name,) in rows(store.path, "SELECT name FROM outbox ORDER BY id")] == [
        str(n // 2) for n in range(100)
    ]


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        writing = [asyncio.create_task(store.accept(ONE)) for _ in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*writing)

    assert sorted(os.listdir(tmp_path)) == ["s.db", "s.db.lock"], "the log is written back"
    assert rows(path, "SELECT count(*) FROM outbox") == [(20,)]


# One hop to the thread


async def test_a_transaction_is_one_hop_to_a_thread_of_its_own(store: Store) -> None:
    here = threading.get_ident()

    threads = await store._writer.atomic(lambda db: (threading.get_ident(), db.in_transaction))

    assert threads[0] != here
    assert threads[1] is True


def test_aiosqlite_still_has_the_private_parts_that_the_connection_leans_on() -> None:
    """An upgrade that takes them away must fail here, before it does so in somebody's daemon."""
    connection = aiosqlite.Connection(lambda: sqlite3.connect(":memory:"), iter_chunk_size=1)

    parameters = list(inspect.signature(connection._execute).parameters.values())

    assert inspect.iscoroutinefunction(connection._execute)
    assert [(p.name, p.kind) for p in parameters[:2]] == [
        ("fn", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ("args", inspect.Parameter.VAR_POSITIONAL),
    ]
    assert isinstance(inspect.getattr_static(connection, "_conn"), property)
    assert isinstance(connection._thread, threading.Thread)


async def test_a_statement_that_hangs_does_not_keep_the_process_alive(store: Store) -> None:
    assert store._writer._db._thread.daemon
    assert store._reader._db._thread.daemon
    assert store._onlooker._db._thread.daemon


async def test_who_looks_waits_neither_for_delivery_nor_for_who_writes(store: Store) -> None:
    """Delivery's look at what waits takes seconds where a million runs are in trouble."""
    insert(store.path, ("r", "n", None))
    begun, done = threading.Barrier(3), threading.Event()
    busy = [
        asyncio.ensure_future(connection.run(lambda db: begun.wait(30) < 3 and done.wait(30)))
        for connection in (store._reader, store._writer)
    ]
    await asyncio.to_thread(begun.wait, 30)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'uncommitted')")
        try:
            async with asyncio.timeout(5):
                told = await store.read(lambda db: read.outbox(db, 0.0))
        finally:
            done.set()
            await asyncio.gather(*busy)

    assert told["outbox"]["pending"] == 1


# Noticing others


async def test_a_commit_is_noticed_even_if_its_sync_takes_seconds(tmp_path: Path) -> None:
    """The log is written, and only long after that can the commit be seen."""
    (tmp_path / "s.db-wal").touch()
    version = 1
    looks = 0

    async def asked() -> int:
        nonlocal looks
        looks += 1
        return version

    async with asyncio.timeout(10), aclosing(changes(tmp_path / "s.db", asked)) as noticed:
        await anext(noticed)
        (tmp_path / "s.db-wal").write_bytes(b"frames")
        waiting = asyncio.ensure_future(anext(noticed))
        await asyncio.sleep(ALERT_S + 0.1)  # the disk is busy
        version = 2
        await waiting

    assert looks < 400


@pytest.mark.alone
async def test_somebody_elses_commit_is_noticed_at_once(store: Store) -> None:
    noticed: list[float] = []
    started = asyncio.Event()
    seen = asyncio.Event()

    async def watch() -> None:
        async for _ in store.changes():
            started.set()
            noticed.append(time.monotonic())
            seen.set()

    async with asyncio.timeout(10):
        watching = asyncio.create_task(watch())
        await started.wait()
        delays = []
        for n in range(5):
            seen.clear()
            await asyncio.to_thread(insert, store.path, (f"r{n}", "n", None))
            committed = time.monotonic()
            await seen.wait()
            delays.append(noticed[-1] - committed)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    assert min(delays) < 0.1
    assert sorted(delays)[2] < 0.1
