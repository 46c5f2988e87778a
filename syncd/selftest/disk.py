"""A disk that fails: any statement may, and any commit, before or after the fact."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

SQL_ERRORS = (
    (sqlite3.SQLITE_FULL, "database or disk is full"),
    (sqlite3.SQLITE_IOERR, "disk I/O error"),
    (sqlite3.SQLITE_BUSY, "database is locked"),
)

Judge = Callable[[str], int | None]
"""Told "statement" or "commit" before each; a number if it is to fail, which says how."""


class Fallible:
    """A SQLite connection that fails as it is told to."""

    def __init__(self, db: sqlite3.Connection, fails: Judge) -> None:
        self.sqlite = db
        self._fails = fails

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return self._step(sql, lambda: self.sqlite.execute(sql, *arguments))

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return self._step(sql, lambda: self.sqlite.executemany(sql, *arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sqlite, name)

    def _step(self, sql: str, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        if sql == "ROLLBACK":  # needs no disk
            return work()
        kind = "commit" if sql == "COMMIT" else "statement"
        n = self._fails(kind)
        if n is None:
            return work()
        if kind == "commit" and n % 2:
            work()  # it has reached the disk, and nobody can know
        code, message = SQL_ERRORS[n % len(SQL_ERRORS)]
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = code
        raise error


def fallibly(opener: Callable[[Path], sqlite3.Connection], fails: Judge) -> Any:
    """The opener of a connection that fails; opening it never does."""
    return lambda path: cast("Any", Fallible(opener(path), fails))
