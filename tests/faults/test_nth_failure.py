"""Every n-th failure: for each step of a history that can fail, it fails, and nothing is lost."""

import asyncio
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import feed
import pytest
from nth import Counter, Sender, fallible_files
from oracle import differing, one_by_one
from stage import Vendor, on_stage, virtually
from stores import delivered as delivered_as_one
from stores import fill, opened

from syncd import intake, log
from syncd.intake import Intake
from syncd.selftest.disk import fallibly
from syncd.selftest.store import Inline, Life
from syncd.spool import Spool
from syncd.store import Store
from syncd.store.connection import Connection

PATCHES = 200
MADE = feed.patches(PATCHES, 12, 5, "nth")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
BURST = 3  # steps that fail in a row, where not one alone does

# In `make test` every so many-th step of a kind fails; in `make faults` every one.
DELIVERING = {"statement": 17, "commit": 3, "send": 4}
TAKING_IN = {"statement": 21, "commit": 5, "rename": 3, "fsync": 6, "read": 5}


@pytest.fixture(autouse=True)
def quiet() -> None:
    log.setup("critical")


# Delivering


async def delivered(counter: Counter, folder: Path) -> None:
    """200 patches in three waves, one of them refused; then everything is as it must be."""
    vendor = Vendor()
    vendor.poison = "poison"
    chance = random.Random(6)

    async def connect(opener, path):  # type: ignore[no-untyped-def]
        db = fallibly(opener, counter.fails)(path)
        db.sqlite.execute("PRAGMA synchronous = OFF")
        return Inline(db, Life(chance, 0.0))

    kind, counter.kind = counter.kind, ""  # a failed start is told by its exit code, elsewhere
    path = folder / "syncd.db"
    made = feed.as_rows(MADE)
    made[50] = (made[50][0], None, '{"mark": "nth-50", "k": "poison"}')
    sender = Sender(vendor, counter)
    async with on_stage(path, sender, rate=100.0, connect=connect) as stage:
        counter.counts.clear()
        counter.kind = kind
        for wave in range(4):
            stage.insert(made[50 * wave : 50 * wave + 50])
            await asyncio.sleep(1.0)
        for _ in range(900):
            await asyncio.sleep(1.0)
            if not (waiting := _pending(path)):
                break

        assert waiting == 0, f"{waiting} still wait"
        counter.kind = ""  # the end of the test is no part of it
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            "SELECT workflow_run_id, name, metadata, state, attempts FROM outbox ORDER BY id"
        ).fetchall()
        counted = dict(db.execute("SELECT state, n FROM counters").fetchall())
    assert [row[:3] for row in rows] == made
    assert [n for n, row in enumerate(rows) if row[3:] != ("delivered", 0)] == [50]
    assert rows[50][3:] == ("dead", 1)
    assert (counted["delivered"], counted["dead"], counted["pending"]) == (PATCHES - 1, 1, 0)
    asked = [row[:3] for row in rows if row[3] == "delivered"]
    assert differing(one_by_one(asked), vendor.runs) == {}
    assert counter.kind == "send" or len(vendor.requests) < 120


def _pending(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        waiting = db.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone()[0]
        return int(waiting + db.execute("SELECT count(*) FROM suspects").fetchone()[0])


# Taking in


async def taken_in(counter: Counter, folder: Path) -> None:
    """Four files with 200 patches, two bad lines, and a file that is none: each is in the outbox
    once and where it belongs in the spool."""

    async def connect(opener, path):  # type: ignore[no-untyped-def]
        def opened(path):  # type: ignore[no-untyped-def]
            db = fallibly(opener, counter.fails)(path)
            db.sqlite.execute("PRAGMA synchronous = OFF")
            return db

        return await Connection.open(opened, path)

    kind, counter.kind = counter.kind, ""
    spool = Spool(folder / "spool", 0.02, 1 << 30)
    spool.prepare()
    bad = b'{"workflow_run_id": "x"}\n'
    files = {
        "a.jsonl": feed.as_jsonl(MADE[:60]) + bad + feed.as_jsonl(MADE[60:100]) + bad,
        "b.csv": feed.as_csv(MADE[100:150]),
        "c.json": feed.as_json(MADE[150:180]),
        "d.jsonl.gz": feed.gzipped(feed.as_jsonl(MADE[180:])),
        "e.txt": b"none",
    }
    for name, content in files.items():
        (spool.incoming / name).write_bytes(content)
    store = await Store.open(folder / "syncd.db", time.time, connect=connect)
    with fallible_files(counter):
        counter.counts.clear()
        counter.kind = kind
        work = asyncio.create_task(Intake(store, spool, chunk_rows=25, rescan_s=0.05).run())
        try:
            async with asyncio.timeout(30.0):
                while list(spool.incoming.iterdir()) or list(spool.taking.iterdir()):
                    assert not work.done(), work
                    await asyncio.sleep(0.005)
        finally:
            counter.kind = ""
            work.cancel()
            await asyncio.wait({work})
    marks = await store.read(
        lambda db: [json.loads(m)["mark"] for (m,) in db.execute("SELECT metadata FROM outbox")]
    )
    batches = await store.read(
        lambda db: db.execute(
            "SELECT name, accepted, rejected FROM batches ORDER BY name"
        ).fetchall()
    )
    await store.close()
    rejected = sorted(path.name for path in (spool.path / "rejected").iterdir())

    assert sorted(marks) == sorted(feed.marks(MADE))
    assert sorted(path.name for path in spool.done.iterdir()) == [*files][:4]
    assert rejected == ["a.jsonl.rejected.jsonl", "e.txt", "e.txt.reason.txt"]
    lines = (spool.path / "rejected" / "a.jsonl.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [61, 102]
    assert [batch for batch in batches if batch[1]] == [
        ("a.jsonl", 100, 2),
        ("b.csv", 50, 0),
        ("c.json", 30, 0),
        ("d.jsonl.gz", 20, 0),
    ]


# Every one


def failures(
    play: Callable[[Counter], None], stride: dict[str, int], *, every: bool
) -> Iterator[Counter]:
    """Play the history once to count, then again for every failure there may be, or for some."""
    counted = Counter()
    play(counted)
    for kind, step in stride.items():
        for n in range(1, counted.counts[kind] + 1, 1 if every else step):
            for length in (1, BURST) if every else ((1, BURST)[n // step % 2],):
                counter = Counter(kind, range(n, n + length))
                try:
                    play(counter)
                except Exception as error:
                    raise AssertionError(f"{kind} {n}, {length} in a row: {error}") from error
                yield counter


def play_delivery(counter: Counter) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        virtually(delivered(counter, Path(folder)))


def play_intake(counter: Counter) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        asyncio.run(taken_in(counter, Path(folder)))


some_and_every = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "every"]
)


@some_and_every
def test_delivering_survives_every_failure(
    every: bool, record_property: Callable[[str, object], None]
) -> None:
    failed = [one.failed for one in failures(play_delivery, DELIVERING, every=every)]

    assert all(failed)
    record_property("failures", len(failed))


@some_and_every
@pytest.mark.timeout(1800)
def test_taking_in_survives_every_failure(
    every: bool,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "RETRY_BASE_S", 0.005)

    failed = [one.failed for one in failures(play_intake, TAKING_IN, every=every)]

    reached = sum(map(bool, failed))  # threads take turns as they like: the last step may not come
    assert reached > 0.9 * len(failed)
    record_property("failures", reached)


async def test_answers_that_are_settled_twice_are_settled_once(tmp_path: Path) -> None:
    """A commit that seemed to fail had reached the disk: the same is written again."""
    async with opened(tmp_path / "syncd.db") as store:
        ids = await fill(store, *[("run", f'{{"k": {n}}}') for n in range(6)])
        answers = [delivered_as_one("run", *ids[:3])]
        later = [delivered_as_one("run", *ids[3:])]

        for group in (answers, answers, later, answers, later):
            await store.settle(group)

        chain = await store.read(
            lambda db: db.execute("SELECT previous_id, state FROM outbox ORDER BY id").fetchall()
        )
        assert chain == [(before, "delivered") for before in (None, *ids[:-1])]
