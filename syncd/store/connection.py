"""One connection in one thread: transactions are plain functions that run there, whole."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import aiosqlite

from syncd.store.access import has_room
from syncd.store.errors import (
    SQLITE_ERRORS,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    translated,
)
from syncd.store.log import Log

T = TypeVar("T")


class Connection:
    """A SQLite connection in a thread of its own. Calls take turns in the order they came."""

    trouble: StoreUnavailable | None = None
    """Why the last transaction could not be made, if so."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._log = Log(path)

    @classmethod
    async def open(cls, opener: Callable[[Path], sqlite3.Connection], path: Path) -> Self:
        """Run `opener` in the new thread. Its errors are raised here."""
        db = aiosqlite.Connection(lambda: opener(path), iter_chunk_size=64)
        db._thread.daemon = True  # noqa: SLF001  a stuck statement must not keep a dying process
        try:
            return cls(await db, path)
        except BaseException:
            # It is about to end, and must not outlive the loop.
            await asyncio.shield(asyncio.to_thread(db._thread.join))  # noqa: SLF001
            raise

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the thread, outside a transaction.

        Cancelling the caller does not stop it: `work` runs to its end, its result is dropped.
        Raises StoreUnavailable for what may pass, StoreError for what does not.
        """
        # aiosqlite offers no public way to run more than one statement in one hop to its thread;
        # a hop per statement costs more than the statements, and lets a cancelled caller leave a
        # transaction open. Hence this one private call, and the upper bound on its version.
        doing = asyncio.ensure_future(self._db._execute(work, self._db._conn))  # type: ignore[no-untyped-call]  # noqa: SLF001
        doing.add_done_callback(_heard)
        try:
            return await asyncio.shield(doing)
        except SQLITE_ERRORS as error:
            raise translated(error, str(self._path)) or error from error

    async def atomic(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction: when this returns, it is on disk; if it raises, undone."""
        try:
            result, over = await self.run(lambda db: self._committed(db, work))
        except (StoreBusy, StoreFull) as error:
            self.trouble = error
            raise
        if over:
            self.trouble = None
        return result

    def _committed(
        self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]
    ) -> tuple[T, bool]:
        """What `work` returns, and whether this proves that there is no trouble any more.

        Whoever begins a transaction has the lock; but what changes nothing is never written. And on
        a full disk a little still finds room in the log, where a larger transaction has failed.
        """
        before = db.total_changes
        result = transaction(db, work)
        self._log.shorten(db)
        full = isinstance(self.trouble, StoreFull)
        return result, not full or (db.total_changes > before and has_room(self._path))

    async def close(self) -> None:
        """Finish what is queued, then close."""
        await asyncio.shield(self._db.close())


def _heard(doing: asyncio.Future[object]) -> None:
    """Keep asyncio from complaining of a failure whose caller was cancelled."""
    if not doing.cancelled():
        doing.exception()


def transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do `work` as one transaction: committed when this returns, undone when it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result
