"""Nothing grows that need not: the log under load, the file over the weeks, the cost of a chunk."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from stores import NOON, STRETCH, Wall, delivered, fill, give_ids_after, states

from syncd.core.patch import Patch
from syncd.store import Selection, Store
from syncd.store.log import LIMIT

MIB = 1 << 20
PAGE = 8192


def log_bytes(store: Store) -> int:
    return Path(f"{store.path}-wal").stat().st_size


@contextmanager
def always_read(path: Path) -> Iterator[None]:
    """A few readers, each quick: there is hardly a moment in which nobody reads."""
    stop = threading.Event()

    def read() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            while not stop.is_set():
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM batches").fetchone()
                stop.wait(0.002)
                db.execute("COMMIT")

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        stop.set()
        for reader in readers:
            reader.join()


async def test_the_log_stays_short_while_a_lot_comes_in_and_somebody_always_reads(
    store: Store,
) -> None:
    largest = 0
    with always_read(store.path):
        for part in range(50):
            await store.accept([Patch(f"r{part}.{n}", "n" * 2_000) for n in range(1_000)])
            largest = max(largest, log_bytes(store))

    assert store.path.stat().st_size > 2 * LIMIT
    assert largest < LIMIT + 8 * MIB


async def test_a_log_that_cannot_be_begun_anew_delays_nothing_but_now_and_then(
    store: Store,
) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as rude:
        rude.execute("BEGIN")
        rude.execute("SELECT count(*) FROM batches").fetchone()
        for part in range(20):
            await store.accept([Patch(f"r{part}.{n}", "n" * 2_000) for n in range(1_000)])
        asked: list[str] = []
        await store._writer.run(lambda db: db.set_trace_callback(asked.append))
        for n in range(20):
            await fill(store, (f"r{n}", "{}"))

    assert log_bytes(store) > LIMIT
    assert [sql for sql in asked if "checkpoint" in sql] == []


async def test_a_log_that_a_reader_has_held_up_shrinks_again(store: Store) -> None:
    await store._writer.run(lambda db: db.execute(f"PRAGMA journal_size_limit = {12 * MIB}"))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as rude:
        rude.execute("BEGIN")
        rude.execute("SELECT count(*) FROM batches").fetchone()
        for part in range(10):
            await store.accept([Patch(f"r{part}.{n}", "n" * 2_000) for n in range(1_000)])
        held_up = log_bytes(store)
    for _ in range(2):  # the first writes the log back, the second begins it anew
        await fill(store, ("r", "{}"))

    assert held_up > 20 * MIB
    assert log_bytes(store) <= 12 * MIB


async def test_the_limit_of_the_log_is_set(store: Store) -> None:
    limit = await store._writer.run(lambda db: db.execute("PRAGMA journal_size_limit").fetchone())

    assert 0 < limit[0] <= 64 * MIB


async def test_the_file_stays_as_large_as_what_is_kept(store: Store, wall: Wall) -> None:
    """Every day as much comes as is forgotten."""
    sizes = []
    for day in range(8):
        wall.now = NOON + 86_400.0 * day
        runs = [f"r{n}" for n in range(300)]
        done = await store.accept([Patch(run, "n" * 1_000) for run in runs])
        assert done.first_id is not None
        await store.settle([delivered(r, done.first_id + n) for n, r in enumerate(runs)])
        after_id = 0
        while not (swept := await store.sweep(after_id, wall.now - 2 * 86_400.0)).done:
            after_id = swept.upto_id
        pages = await store._writer.run(lambda db: db.execute("PRAGMA page_count").fetchone())
        sizes.append(pages[0])

    assert len(states(store.path)) == 3 * 300
    assert max(sizes[4:]) <= 1.1 * sizes[3]


async def test_a_sweep_leaves_alone_what_has_come_too_late_to_be_old(
    store: Store, wall: Wall
) -> None:
    await store.accept([Patch(f"old{n}", "n") for n in range(10)])
    await store.operate("discard", Selection(everything=True), in_flight=())
    wall.now = NOON + 100.0
    await store.accept([Patch(f"new{n}", "n") for n in range(2_000)])

    first = await store.sweep(0, NOON + 50.0)
    second = await store.sweep(first.upto_id, NOON + 50.0)

    assert (first.deleted, first.done) == (10, False)
    assert (second.deleted, second.done, second.upto_id) == (0, True, 0)


async def test_a_chunk_of_random_runs_changes_few_pages_however_many_wait(store: Store) -> None:
    """What makes taking in a large file cheap: see the index outbox_lane."""
    await store.accept([Patch(f"{n * 2_654_435_761 % (1 << 32):032x}", "n") for n in range(60_000)])
    await give_ids_after(store, STRETCH)
    await store._writer.run(
        lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # begin it anew
    )

    await store.accept([Patch(f"{n * 40_503 % (1 << 32):032x}", "n") for n in range(1_000)])

    assert log_bytes(store) < 50 * PAGE
