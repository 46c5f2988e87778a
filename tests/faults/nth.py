"""Steps that can fail, counted: statements, commits, renames, syncs, reads, sends."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from syncd.core.answer import NoReply
from syncd.selftest.store import Inline
from syncd.spool.folders import SpoolFile
from syncd.store.errors import translated

T = TypeVar("T")

SQL_ERRORS = (
    (sqlite3.SQLITE_FULL, "database or disk is full"),
    (sqlite3.SQLITE_IOERR, "disk I/O error"),
    (sqlite3.SQLITE_BUSY, "database is locked"),
)
OS_ERRORS = (errno.ENOSPC, errno.EIO)


@dataclass(slots=True)
class Counter:
    """Steps of each kind so far, and which of them fail."""

    kind: str = ""
    nth: range = range(0)
    """Counted from 1; a range of one is one failure, a longer one a bad moment."""
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0

    def fails(self, kind: str) -> int | None:
        """Count a step; its number if it is to fail."""
        n = self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind != self.kind or n not in self.nth:
            return None
        self.failed += 1
        return n


class Fallible:
    """A SQLite connection whose steps are counted. A commit may fail before or after the fact."""

    def __init__(self, db: sqlite3.Connection, counter: Counter) -> None:
        self._db = db
        self._counter = counter

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return self._step(sql, lambda: self._db.execute(sql, *arguments))

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return self._step(sql, lambda: self._db.executemany(sql, *arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def _step(self, sql: str, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        if sql == "ROLLBACK":  # needs no disk
            return work()
        kind = "commit" if sql == "COMMIT" else "statement"
        n = self._counter.fails(kind)
        if n is None:
            return work()
        if kind == "commit" and n % 2:
            work()  # it has reached the disk, and nobody can know
        code, message = SQL_ERRORS[n % len(SQL_ERRORS)]
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = code
        raise error


def fallibly(opener: Callable[[Path], sqlite3.Connection], counter: Counter) -> Any:
    """The opener of a connection that fails; opening it never does."""
    return lambda path: Fallible(opener(path), counter)


class Translating(Inline):
    """As the real connection does, it says which errors may pass."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await super().run(work)
        except sqlite3.Error as error:
            raise translated(error, "syncd.db") or error from error


class Sender:
    """The way to the vendor: the n-th request is lost before or after it is applied."""

    def __init__(self, vendor: Any, counter: Counter) -> None:
        self._vendor = vendor
        self._counter = counter

    async def update(self, run_id: str, body: bytes) -> Any:
        n = self._counter.fails("send")
        if n is None:
            return await self._vendor.update(run_id, body)
        if n % 2:
            await self._vendor.update(run_id, body)
        return NoReply("reset", "the connection broke", ambiguous=bool(n % 2))

    async def retrieve(self, run_id: str) -> Any:
        return await self._vendor.retrieve(run_id)


@contextmanager
def fallible_files(counter: Counter):  # type: ignore[no-untyped-def]
    """os.rename, os.fsync and reads of spool files are counted, and fail."""

    def failing(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            n = counter.fails(kind)
            if n is None:
                return real(*arguments, **named)
            raise OSError(OS_ERRORS[n % 2], os.strerror(OS_ERRORS[n % 2]))

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", failing("rename", os.rename))
        patch.setattr(os, "fsync", failing("fsync", os.fsync))
        patch.setattr(SpoolFile, "read", failing("read", SpoolFile.read))
        yield
