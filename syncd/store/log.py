"""SQLite's write-ahead log, kept short while others read all the time."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from syncd.store.access import beside

LIMIT = 32 << 20  # bytes; SQLite itself writes the log back from 8 MiB on
PATIENCE_S = 0.1  # for readers to finish; producers wait as long


class Log:
    """The log beside a database, looked at by whoever has just written to it."""

    def __init__(self, database: Path) -> None:
        self._path = beside(database, "-wal")
        self._allowed = LIMIT

    def shorten(self, db: sqlite3.Connection) -> None:
        """Begin the log anew if it has become long, unless somebody reads for longer than we wait.

        SQLite begins it anew by itself, but only at a commit during which nobody reads: among many
        readers, however quick, that may never come, and everybody looks through an endless log.
        """
        try:
            size = self._path.stat().st_size
        except OSError:
            return
        if size > self._allowed:
            self._allowed = LIMIT if _begin_anew(db) else size + LIMIT // 2


def _begin_anew(db: sqlite3.Connection) -> bool:
    (usual_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {int(1000 * PATIENCE_S)}")
    try:
        with suppress(sqlite3.OperationalError):  # a full disk: what was committed stays so
            (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {usual_ms}")
