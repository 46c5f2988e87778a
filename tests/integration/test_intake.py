"""From dropped files to rows of the outbox: once each, in order, whatever happens meanwhile."""

import asyncio
import gzip
import itertools
import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from asyncinotify import Inotify, Mask
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import looks
from syncd.core.patch import Patch
from syncd.intake import CHUNK_S, Intake, pause_after
from syncd.spool import Outlook, Spool
from syncd.spool.ready import Stage
from syncd.store import Accepted, Place, Store, StoreBusy, StoreFull

SOON_S = 20.0
SHM = Path("/dev/shm")
Row = tuple[str, str | None, str | None]


class Killed(BaseException):
    """The process ends here."""


class FragileStore(Store):
    """A store that dies, or says that it cannot, at chosen calls."""

    kill_before: int | None = None
    kill_after: int | None = None
    refusals: list[tuple[Exception, bool]]
    """Errors of the next calls to accept, and whether the patches are written all the same."""
    calls = 0
    closing: asyncio.Event

    async def close_batch(
        self, batch_id: int, rejected: int | None = None, *, refused: str | None = None
    ) -> None:
        await super().close_batch(batch_id, rejected, refused=refused)
        self.closing.set()

    async def all_closed(self) -> None:
        """Wait until every file has left the spool."""
        async with asyncio.timeout(SOON_S):
            while not all(batch[-1] for batch in batches(self)):
                await self.closing.wait()
                self.closing.clear()

    async def accept(self, patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        self.calls += 1
        if self.calls == self.kill_before:
            raise Killed
        if self.refusals:
            error, written = self.refusals.pop(0)
            if written:
                await super().accept(patches, place)
            raise error
        accepted = await super().accept(patches, place)
        if self.calls == self.kill_after:
            raise Killed
        return accepted


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", 0.05, 1 << 30)
    spool.prepare()
    return spool


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FragileStore]:
    store = await FragileStore.open(tmp_path / "syncd.db", time.time)
    store.refusals = []
    store.closing = asyncio.Event()
    yield store
    await store.close()


class Moves:
    """What arrives in `done/` and `rejected/`, by events."""

    def __init__(self, spool: Spool) -> None:
        self._inotify = Inotify()
        for folder in ("done", "rejected"):
            self._inotify.add_watch(spool.path / folder, Mask.MOVED_TO)

    async def until(self, *names: str) -> None:
        """Wait until files of these names have arrived, in any order."""
        missing = set(names)
        async with asyncio.timeout(SOON_S):
            while missing:
                missing.discard(str((await self._inotify.get()).name))

    def close(self) -> None:
        self._inotify.close()


@asynccontextmanager
async def running(intake: Intake, spool: Spool) -> AsyncIterator[Moves]:
    """Intake at work, until the block ends."""
    moves = Moves(spool)
    task = asyncio.create_task(intake.run())
    try:
        yield moves
    finally:
        task.cancel()
        await asyncio.wait({task})
        moves.close()
        if not task.cancelled():
            task.result()


def intake_of(store: Store, spool: Spool, rows: int = 1000) -> Intake:
    return Intake(store, spool, chunk_rows=rows)


async def ended(moves: Moves, store: FragileStore, *names: str) -> None:
    """Wait until these files have ended somewhere, and the store knows."""
    await moves.until(*names)
    await store.all_closed()


async def take_in(store: FragileStore, spool: Spool, *names: str, rows: int = 1000) -> None:
    """Run intake until these files have ended somewhere."""
    async with running(intake_of(store, spool, rows), spool) as moves:
        await ended(moves, store, *names)


def drop(spool: Spool, name: str, data: bytes | str) -> None:
    """Put a file in place by rename, as producers should."""
    data = data.encode() if isinstance(data, str) else data
    if name.endswith(".gz"):
        data = gzip.compress(data)
    temporary = spool.incoming / f".{name}.tmp"
    temporary.write_bytes(data)
    temporary.rename(spool.incoming / name)


def rows_of(store: Store) -> list[Row]:
    with sqlite3.connect(store.path) as db:
        found = db.execute(
            "SELECT workflow_run_id, name, metadata FROM outbox ORDER BY id"
        ).fetchall()
    db.close()
    return found


def batches(store: Store) -> list[tuple[str, int, int, int, bool]]:
    with sqlite3.connect(store.path) as db:
        found = db.execute(
            "SELECT name, accepted, duplicates, rejected, closed_at IS NOT NULL"
            "  FROM batches ORDER BY id"
        ).fetchall()
    db.close()
    return [(*row[:4], bool(row[4])) for row in found]


def line(n: int, **fields: object) -> str:
    return json.dumps({"workflow_run_id": f"r{n}", "name": f"n{n}", **fields})


def row(n: int) -> Row:
    return (f"r{n}", f"n{n}", None)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.name: path.read_text(errors="replace")
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.is_symlink()
    }


# Every format


async def test_files_of_every_format_become_rows(store: FragileStore, spool: Spool) -> None:
    contents = {
        "1.json": f"[{line(1)}, {line(2)}]",
        "2.jsonl": f"{line(3)}\n{line(4)}\n",
        "3.ndjson": line(5),
        "4.csv": "workflow_run_id,name\nr6,n6\nr7,n7\n",
        "5.json.gz": line(8),
        "6.jsonl.gz": f"{line(9)}\n",
        "7.csv.gz": "name,workflow_run_id\nn10,r10\n",
    }
    for n, (name, text) in enumerate(contents.items()):
        drop(spool, name, text)
        os.utime(spool.incoming / name, (n, n))

    await take_in(store, spool, *contents)

    assert rows_of(store) == [row(n) for n in range(1, 11)]
    assert sorted(path.name for path in spool.done.iterdir()) == list(contents)
    assert [batch[:2] for batch in batches(store)] == [
        *[("1.json", 2), ("2.jsonl", 2), ("3.ndjson", 1), ("4.csv", 2)],
        *[("5.json.gz", 1), ("6.jsonl.gz", 1), ("7.csv.gz", 1)],
    ]
    assert spool.waiting() == spool.rejected() == 0


async def test_files_that_come_later_are_noticed(store: FragileStore, spool: Spool) -> None:
    async with running(intake_of(store, spool), spool) as moves:
        for n in range(3):
            drop(spool, "a.jsonl", line(n))
            await moves.until("a.jsonl" if n == 0 else f"a.{n}.jsonl")

        with (spool.incoming / "b.csv").open("w") as writer:
            writer.write("workflow_run_id,name\nr3,")
            writer.flush()
            drop(spool, "c.jsonl", line(4))
            await moves.until("c.jsonl")
            assert (spool.incoming / "b.csv").exists()
            writer.write("n3")
        await moves.until("b.csv")

    assert rows_of(store) == [row(n) for n in (0, 1, 2, 4, 3)]


async def test_numbers_reach_the_outbox_as_they_were_written(
    store: FragileStore, spool: Spool
) -> None:
    metadata = '{"big":123456789012345678901234567890,"f":1.10,"e":1E5,"z":-0.0}'
    drop(spool, "a.jsonl", f'{{"workflow_run_id":"r","metadata":{metadata}}}')

    await take_in(store, spool, "a.jsonl")

    assert rows_of(store) == [("r", None, metadata)]


async def test_lines_that_are_no_patches_go_to_a_file_of_their_own(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", f"{line(1)}\n{{oops\n{line(2)}\n{line(3, nmae=1)}\n")

    await take_in(store, spool, "a.jsonl")

    rejected = tree(spool.path / "rejected")
    lines = [json.loads(each) for each in rejected.pop("a.jsonl.rejected.jsonl").splitlines()]
    assert rows_of(store) == [row(1), row(2)]
    assert [(each["line"], each["input"]) for each in lines] == [
        (2, "{oops"),
        (4, line(3, nmae=1)),
    ]
    assert lines[1]["reason"] == 'unknown field "nmae": did you mean "name"?'
    assert rejected == {}
    assert batches(store) == [("a.jsonl", 2, 0, 2, True)]


async def test_known_keys_are_counted_as_duplicates(store: FragileStore, spool: Spool) -> None:
    drop(spool, "a.jsonl", f"{line(1, idempotency_key='k')}\n{line(2, idempotency_key='k')}\n")

    await take_in(store, spool, "a.jsonl")

    assert rows_of(store) == [row(1)]
    assert batches(store) == [("a.jsonl", 1, 1, 0, True)]


# What is refused whole

GOOD = f"{line(1)}\n"
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "notes.txt": (b"hello", "another kind"),
    "noname": (b"hello", "another kind"),
    "cut.json": (f"[{line(7)},".encode(), "truncated"),
    "nan.json": (b'[{"workflow_run_id":"r","metadata":{"a":NaN}}]', "not valid JSON"),
    "deep.json": (b"[" * 200_000, "truncated"),
    "wide.jsonl": (GOOD.encode("utf-16"), "UTF-8"),
    "bare.csv": (b"run,title\n1,2\n", "unknown column"),
    "empty.csv": (b"", "empty"),
}


async def test_a_file_that_cannot_be_read_lies_whole_beside_its_reason(
    store: FragileStore, spool: Spool
) -> None:
    for name, (data, _) in UNREADABLE.items():
        drop(spool, name, data)
    for name, data in (("cut.json.gz", gzip.compress(b"x" * 99)[:-9]), ("bad.csv.gz", b"plain")):
        (spool.incoming / f".{name}").write_bytes(data)
        (spool.incoming / f".{name}").rename(spool.incoming / name)
    drop(spool, "z.jsonl", GOOD)

    names = [*UNREADABLE, "cut.json.gz", "bad.csv.gz"]
    await take_in(store, spool, *names, "z.jsonl")

    found = tree(spool.path / "rejected")
    assert rows_of(store) == [row(1)]
    assert sorted(found) == sorted([*names, *(f"{name}.reason.txt" for name in names)])
    for name, (data, words) in UNREADABLE.items():
        assert words in found[f"{name}.reason.txt"], name
        assert (spool.path / "rejected" / name).read_bytes() == data
    assert "truncated" in found["cut.json.gz.reason.txt"]
    assert "not a gzip file" in found["bad.csv.gz.reason.txt"]


async def test_what_is_no_regular_file_is_moved_away_unread(
    store: FragileStore, spool: Spool
) -> None:
    secret = spool.path / "secret.jsonl"
    secret.write_text(GOOD)
    (spool.incoming / "link.jsonl").symlink_to(secret)
    (spool.incoming / "folder.jsonl").mkdir()
    os.mkfifo(spool.incoming / "fifo.jsonl")
    os.link(secret, spool.incoming / "hard.jsonl")

    await take_in(store, spool, "hard.jsonl")

    assert rows_of(store) == []
    assert list(spool.incoming.iterdir()) == []
    assert {path.name for path in (spool.path / "rejected").iterdir()} == {
        f"{name}.jsonl{ending}"
        for name in ("link", "folder", "fifo", "hard")
        for ending in ("", ".reason.txt")
    }


async def test_files_that_are_too_large_are_refused_before_a_patch_is_taken(
    tmp_path: Path, store: FragileStore
) -> None:
    spool = Spool(tmp_path / "spool", 0.05, 1 << 20)
    spool.prepare()
    drop(spool, "bomb.jsonl.gz", GOOD.encode() + b"\n" * (2 << 20))
    drop(spool, "large.jsonl", GOOD.encode() + b"\n" * (1 << 20))

    await take_in(store, spool, "bomb.jsonl.gz", "large.jsonl")

    assert rows_of(store) == []
    reasons = [t for name, t in tree(spool.path / "rejected").items() if name.endswith(".txt")]
    assert all("max_file_bytes" in reason for reason in reasons)
    assert len(reasons) == 2


# Once each, whatever happens

MIXED = [line(n) if n % 4 else f"bad {n}" for n in range(30)]
FILES = {
    "a.jsonl": "\n".join(MIXED),
    "b.json": "[" + ",\n".join(each if each[0] == "{" else '"bad"' for each in MIXED) + "]",
    "c.csv": "workflow_run_id,name\n"
    + "".join(f'r{n},"n{n}"\n' if n % 4 else f'r{n},"x"y\n' for n in range(30)),
    "d.jsonl.gz": "\n".join(MIXED),
    "e.json.gz": "[" + ",\n".join(each if each[0] == "{" else "[7]" for each in MIXED) + "]",
}
EXPECTED = [row(n) for n in range(30) if n % 4]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_any_commit_each_patch_is_taken_once(
    store: FragileStore, spool: Spool, name: str, moment: str
) -> None:
    drop(spool, name, FILES[name])
    kills = 0

    while True:
        store.calls = 0
        # The third commit of every life but the last: each life gets a little further.
        store.kill_before, store.kill_after = (3, None) if moment == "before" else (None, 2)
        # What a process had written of the rejects and not recorded.
        for rejects in spool.taking.glob(".*"):
            rejects.write_bytes(rejects.read_bytes() + b'{"line": 99, "half')
        moves = Moves(spool)
        intake = asyncio.create_task(intake_of(store, spool, rows=3).run())
        done = asyncio.create_task(ended(moves, store, name))
        await asyncio.wait({intake, done}, return_when=asyncio.FIRST_COMPLETED)
        finished = done.done()
        for task in (intake, done):
            task.cancel()
        await asyncio.wait({intake, done})
        moves.close()
        if finished:
            break
        assert isinstance(intake.exception(), Killed)
        kills += 1

    rejected = (spool.path / "rejected" / f"{name}.rejected.jsonl").read_text().splitlines()
    assert kills >= 4
    assert rows_of(store) == EXPECTED
    assert [json.loads(each)["line"] for each in rejected] == [
        n + (2 if name == "c.csv" else 1) for n in range(30) if n % 4 == 0
    ]
    assert batches(store)[0] == (name, len(EXPECTED), 0, 8, True)
    assert len(batches(store)) == 1


LIFE = """
import asyncio, sys, time
from pathlib import Path
from syncd.intake import Intake
from syncd.spool import Outlook, Spool
from syncd.spool.ready import Stage
from syncd.store import Store

async def live(home):
    store = await Store.open(home / "syncd.db", time.time)
    await Intake(store, Spool(home / "spool", 0.05, 1 << 30), chunk_rows=50).run()

print("up", flush=True)
asyncio.run(live(Path(sys.argv[1])))
"""


async def test_kill_9_neither_loses_nor_repeats_a_patch(tmp_path: Path, spool: Spool) -> None:
    mixed = [line(n) if n % 7 else f"bad {n}" for n in range(3000)]
    drop(spool, "a.jsonl", "\n".join(mixed))
    drop(spool, "b.jsonl.gz", "\n".join(mixed))
    chance = random.Random(7)

    kills = 0
    while spool.waiting():
        life = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LIFE, os.fspath(tmp_path)), stdout=asyncio.subprocess.PIPE
        )
        assert life.stdout is not None
        await life.stdout.readline()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02 + 0.3 * chance.random()):
                await life.wait()
        life.kill()
        await life.communicate()
        kills += 1

    store = await FragileStore.open(tmp_path / "syncd.db", time.time)
    await store.close()
    good, bad = [n for n in range(3000) if n % 7], [n for n in range(3000) if n % 7 == 0]
    assert kills > 2
    assert rows_of(store) == [row(n) for n in good * 2]
    for name in ("a.jsonl", "b.jsonl.gz"):
        lines = (spool.path / "rejected" / f"{name}.rejected.jsonl").read_text().splitlines()
        assert [json.loads(each)["line"] for each in lines] == [n + 1 for n in bad]


async def test_cancelled_anywhere_it_goes_on_where_it_was(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", "\n".join(line(n) for n in range(2000)))
    loop = asyncio.get_running_loop()

    cancellations = 0
    while spool.waiting():
        task = asyncio.create_task(intake_of(store, spool, rows=20).run())
        loop.call_later(0.003 + 0.002 * cancellations, task.cancel)
        await asyncio.wait({task})
        assert task.cancelled()
        cancellations += 1

    assert cancellations > 3
    assert rows_of(store) == [row(n) for n in range(2000)]


async def test_a_file_killed_between_its_last_commit_and_its_move_is_only_moved(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", GOOD)
    store.kill_after = 1
    with pytest.raises(Killed):
        await intake_of(store, spool).run()
    assert rows_of(store) == [row(1)]
    drop(spool, "a.jsonl", line(2))

    await take_in(store, spool, "a.jsonl", "a.1.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert tree(spool.done) == {"a.jsonl": GOOD, "a.1.jsonl": line(2)}


async def test_a_file_killed_between_its_move_and_its_end_does_not_hide_the_next_of_its_name(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", GOOD)
    store.kill_after = 1
    with pytest.raises(Killed):
        await intake_of(store, spool).run()
    spool.finish("a.jsonl")
    drop(spool, "a.jsonl", line(2))

    await take_in(store, spool, "a.1.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert batches(store) == [("a.jsonl", 1, 0, 0, True), ("a.jsonl", 1, 0, 0, True)]


# What stands in the way


@pytest.mark.parametrize("written", [False, True])
async def test_a_full_disk_or_a_locked_database_is_waited_out(
    store: FragileStore, spool: Spool, written: bool
) -> None:
    drop(spool, "a.jsonl", "\n".join([line(1), "bad", line(2)]))
    store.refusals = [(StoreFull("disk full"), False), (StoreBusy("locked"), written)]
    intake = intake_of(store, spool)

    async with running(intake, spool) as moves:
        await moves.until("a.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert intake.figures.trouble is None
    assert len(tree(spool.path / "rejected")["a.jsonl.rejected.jsonl"].splitlines()) == 1


@pytest.mark.skipif(
    not SHM.is_dir() or SHM.stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs two file systems",
)
async def test_a_file_that_cannot_be_moved_stays_and_is_tried_again(
    store: FragileStore, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(store, spool, rescan_s=0.02)
    elsewhere = Path(tempfile.mkdtemp(dir=SHM))
    drop(spool, "a.jsonl", GOOD)
    rename = os.rename

    def across(name: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        rename(name, elsewhere / target, src_dir_fd=src_dir_fd)

    async with running(intake, spool) as moves:
        monkeypatch.setattr(os, "rename", across)
        async with asyncio.timeout(SOON_S):
            while not intake.figures.left:  # noqa: ASYNC110  it is a fact, not an event
                await asyncio.sleep(0)
        assert (spool.incoming / "a.jsonl").exists()
        monkeypatch.undo()
        os.rmdir(elsewhere)
        await ended(moves, store, "a.jsonl")

        assert intake.figures.left == ()
    assert rows_of(store) == [row(1)]


@pytest.mark.parametrize("since", ["the start", "later"])
async def test_a_folder_that_is_a_file_is_told_and_waited_for(
    store: FragileStore, spool: Spool, since: str
) -> None:
    """In words: which one, and what to do; not as the error of some rename."""
    if since == "the start":
        spool.done.rmdir()
        spool.done.write_text("")
    intake = intake_of(store, spool)

    async with running(intake, spool):
        if since == "later":
            await intake.watching.wait()
            spool.done.rmdir()
            spool.done.write_text("")
        drop(spool, "a.jsonl", GOOD)
        async with asyncio.timeout(SOON_S):
            while not (trouble := intake.figures.trouble):  # noqa: ASYNC110  a fact, no event
                await asyncio.sleep(0)
        spool.done.unlink()
        await store.closing.wait()

    assert trouble == f"{spool.done}: not a folder: move it away"
    assert intake.figures.trouble is None
    assert tree(spool.done) == {"a.jsonl": GOOD}


@pytest.mark.parametrize("since", ["the start", "later"])
@pytest.mark.parametrize("name", ["incoming", "taking", "done", "rejected"])
async def test_a_folder_that_is_a_link_is_told_and_not_followed(
    store: FragileStore, spool: Spool, tmp_path: Path, name: str, since: str
) -> None:
    """What lies behind it was never dropped here, and stays."""
    folder, behind, aside = spool.path / name, tmp_path / "behind", tmp_path / "aside"
    (behind / "inside").mkdir(parents=True)
    (behind / "other.jsonl").write_text(line(2))
    intake = Intake(store, spool, rescan_s=0.02)

    def put_in_place() -> None:
        folder.rename(aside)
        folder.symlink_to(behind)

    if since == "the start":
        put_in_place()
    async with running(intake, spool):
        if since == "later":
            await intake.watching.wait()
            put_in_place()
        async with asyncio.timeout(SOON_S):
            while not (trouble := intake.figures.trouble):  # noqa: ASYNC110  a fact, no event
                await asyncio.sleep(0)
        folder.unlink()
        aside.rename(folder)
        drop(spool, "a.jsonl", GOOD)
        await store.closing.wait()

    assert trouble == f"{folder}: a symbolic link, not a folder: move it away"
    assert sorted(path.name for path in behind.iterdir()) == ["inside", "other.jsonl"]
    assert rows_of(store) == [row(1)]


async def test_the_way_to_the_spool_may_lead_through_links(
    store: FragileStore, spool: Spool, tmp_path: Path
) -> None:
    """State may well lie on another disk."""
    (tmp_path / "way").symlink_to(spool.path)
    through = Spool(tmp_path / "way", spool.settle_s, spool.max_file_bytes)
    drop(through, "a.jsonl", GOOD)

    await take_in(store, through, "a.jsonl")

    assert tree(spool.done) == {"a.jsonl": GOOD}


class Counting(Spool):
    """A spool that knows how often it was looked into."""

    looks = 0

    def scan(self, stages: Mapping[str, Stage]) -> Outlook:
        self.looks += 1
        return super().scan(stages)


async def test_a_file_that_is_touched_without_end_is_not_looked_at_without_end(
    store: FragileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look costs something for every file that waits; and what comes is taken all the same."""
    monkeypatch.setattr(looks, "AT_ONCE_S", 0.0)
    spool = Counting(tmp_path / "spool", 0.05, 1 << 30)
    spool.prepare()
    with (spool.incoming / "held.jsonl").open("w") as held:
        async with running(intake_of(store, spool), spool) as moves:
            for n in range(200):
                os.fchmod(held.fileno(), 0o600 | n % 2)
                await asyncio.sleep(0.003)  # as somebody who is never done
            seen = spool.looks
            drop(spool, "a.jsonl", GOOD)
            await moves.until("a.jsonl")

    assert seen < 50
    assert rows_of(store) == [row(1)]


async def test_missing_folders_are_made_again(store: FragileStore, spool: Spool) -> None:
    """Whatever comes next: a file that is taken, or one that is refused."""
    async with running(intake_of(store, spool), spool) as moves:
        drop(spool, "a.jsonl", GOOD)
        await moves.until("a.jsonl")
        await store.all_closed()
        (spool.done / "a.jsonl").unlink()
        spool.done.rmdir()
        store.closing.clear()
        drop(spool, "b.jsonl", line(2))
        await store.closing.wait()

        rejected = spool.path / "rejected"
        rejected.rmdir()
        (spool.incoming / "link.jsonl").symlink_to("/dev/zero")
        async with asyncio.timeout(SOON_S):
            while not (rejected / "link.jsonl").is_symlink():  # noqa: ASYNC110  nothing to await
                await asyncio.sleep(0.005)

    assert rows_of(store) == [row(1), row(2)]
    assert tree(spool.done) == {"b.jsonl": line(2)}


async def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(
    store: FragileStore, spool: Spool
) -> None:
    """Its writer has opened it before it was moved to its place, and goes on."""
    path = spool.incoming / "a.jsonl"
    accept = store.accept

    async def grow(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        if store.calls == 0:
            with (spool.taking / "a.jsonl").open("a") as late:
                late.write(line(3) + "\n")
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    store.accept = grow  # type: ignore[method-assign]
    await take_in(store, spool, "a.jsonl", rows=1)

    assert not path.exists()
    assert rows_of(store) == [row(1), row(2), row(3)]


async def test_a_file_replaced_while_it_is_read_makes_two(
    store: FragileStore, spool: Spool
) -> None:
    accept = store.accept

    async def replace(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        if store.calls == 0:
            drop(spool, "a.jsonl", f"{line(3)}\n")
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    store.accept = replace  # type: ignore[method-assign]
    await take_in(store, spool, "a.jsonl", "a.1.jsonl", rows=1)

    assert rows_of(store) == [row(1), row(2), row(3)]


async def test_a_file_that_vanishes_while_it_is_read_is_taken(
    store: FragileStore, spool: Spool
) -> None:
    accept = store.accept

    async def vanish(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        (spool.taking / "a.jsonl").unlink(missing_ok=True)
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    drop(spool, "b.jsonl", f"{line(3)}\n")
    store.accept = vanish  # type: ignore[method-assign]
    await take_in(store, spool, "b.jsonl", rows=1)

    assert rows_of(store) == [row(1), row(2), row(3)]
    assert batches(store) == [("a.jsonl", 2, 0, 0, True), ("b.jsonl", 1, 0, 0, True)]


async def test_a_name_that_is_no_text_is_taken_like_any_other(
    store: FragileStore, spool: Spool
) -> None:
    name = os.fsdecode(b"\xff\n.jsonl")
    drop(spool, name, GOOD)

    await take_in(store, spool, name)

    assert rows_of(store) == [row(1)]
    assert batches(store)[0][0] == "\\xff\n.jsonl"


@given(turn_s=st.floats(CHUNK_S / 2, 0.39), begun=st.floats(0.0, 1.0))
def test_whoever_waits_as_sqlite_does_gets_in_within_half_a_second(
    turn_s: float, begun: float
) -> None:
    """Turns follow each other with no more than the pause between them; sleeps are a bit late."""
    round_s = turn_s + pause_after(turn_s)
    waits = [0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.025, 0.025, 0.025, 0.050, 0.050]
    tries = itertools.accumulate([begun * turn_s, *waits, *[0.100] * 10], lambda a, b: a + b + 2e-4)

    got_in = next(at for at in tries if at % round_s >= turn_s)

    assert got_in - begun * turn_s <= 0.5


@pytest.mark.alone
async def test_other_producers_do_not_wait_long_for_a_large_file(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", "\n".join(line(n) for n in range(60_000)))
    stop = threading.Event()
    waits: list[float] = []

    def insert() -> None:
        db = sqlite3.connect(store.path, timeout=10.0, isolation_level=None)
        while not stop.is_set():
            began = time.monotonic()
            db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('other', 'x')")
            waits.append(time.monotonic() - began)
            stop.wait(0.002)
        db.close()

    other = threading.Thread(target=insert)
    other.start()
    async with running(Intake(store, spool), spool) as moves:
        await moves.until("a.jsonl")
    stop.set()
    other.join()

    assert len(waits) > 20
    assert max(waits) < 0.5
    assert [each for each in rows_of(store) if each[0] != "other"] == [
        row(n) for n in range(60_000)
    ]


class CoarseClock(asyncio.SelectorEventLoop):
    """A loop whose clock goes by tenths of a second, as uvloop's goes by milliseconds."""

    def time(self) -> float:
        return super().time() // 0.1 / 10


def test_a_chunk_may_take_no_time_at_all(spool: Spool, tmp_path: Path) -> None:
    async def live() -> list[Row]:
        store = await FragileStore.open(tmp_path / "syncd.db", time.time)
        store.refusals = []
        store.closing = asyncio.Event()
        for n in range(10):
            drop(spool, f"{n}.jsonl", line(n))
        await take_in(store, spool, *(f"{n}.jsonl" for n in range(10)))
        await store.close()
        return rows_of(store)

    with asyncio.Runner(loop_factory=CoarseClock) as runner:
        assert sorted(runner.run(live())) == [row(n) for n in range(10)]


async def test_the_loop_stays_free_while_a_file_is_verified(
    store: FragileStore, spool: Spool
) -> None:
    """As one piece of work it would leave room for a beat or two, however fast the machine."""
    drop(spool, "a.json", "[" + ",".join(line(n) for n in range(30_000)) + "]")
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while not rows_of(store):
            await asyncio.sleep(0.001)
            beats += 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beat())
        await take_in(store, spool, "a.json")

    assert beats > 5
