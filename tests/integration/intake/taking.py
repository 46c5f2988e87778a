"""Intake at work on a spool of the test's own, with a store that fails where it is told to."""

import asyncio
import gzip
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from asyncinotify import Inotify, Mask

from syncd.core.patch import Patch
from syncd.intake import Intake
from syncd.spool import Spool
from syncd.store import Accepted, Place, Store

SOON_S = 20.0
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


GOOD = f"{line(1)}\n"
