"""What the store says when it cannot: SQLite's errors, translated once."""

import sqlite3
from pathlib import Path

from syncd.errors import SyncdError
from syncd.store.access import hindrance


class StoreError(SyncdError):
    """The database cannot be used, and waiting will not change that."""


class StoreInUse(StoreError):
    """Another process holds the database's lock: a daemon, or an operator's verb at work."""


class StoreUnavailable(SyncdError):
    """The database cannot be used now; the same call may work later. Nothing was changed."""


class StoreBusy(StoreUnavailable):
    """Another process holds the database's write lock for too long."""


class StoreMoved(StoreUnavailable):
    """The file is not where it was opened: what is taken into it now nobody may ever find."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: the database was moved or removed under the daemon, which takes nothing in"
            " until you put it back, with its -wal"
        )


class StoreUnseen(StoreUnavailable):
    """Whether the file is where it was opened cannot be seen: a folder that was shut, a disk that
    fails."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path}: the daemon cannot look at its database: {error.strerror or error}: it takes"
            " nothing in until you open the folders above to its user, or mend the file system"
        )


class StoreFull(StoreUnavailable):
    """The disk is full, gone or read-only, or the file is not ours to write."""


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}
_NOT_LET = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# SQLite takes a name of the schema with a letter changed for another name.
_NOT_AS_MADE = ("no such table", "no such column", "unsupported file format", "table outbox")


# Python's module fails to read SQLite's own words if they name what is not UTF-8.
SqliteError = sqlite3.Error | UnicodeDecodeError
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


def translated(error: SqliteError, path: str) -> SyncdError | None:
    """The error as one of ours; None for one that only a mistake in syncd can cause."""
    if isinstance(error, UnicodeDecodeError):
        said = error.object.decode(errors="backslashreplace")
        return StoreError(f"{path}: damaged: {said}: {recovery(path)}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
    if code in _BUSY:
        return StoreBusy(
            f"{path}: locked by another process, whose transaction must end first:"
            f" `fuser -v {path}` names who has it open"
        )
    if code in _NOT_LET and (why := hindrance(Path(path))):
        return StoreFull(f"{path}: {error}: {why}")
    if code in _FULL:
        return StoreFull(f"{path}: {error}: free space or mend the file system")
    if code in _CORRUPT:
        return StoreError(f"{path}: {error}: {recovery(path)}")
    if code == sqlite3.SQLITE_ERROR and str(error).startswith(_NOT_AS_MADE):
        return StoreError(f"{path}: damaged: {error}: {recovery(path)}")
    return None


def recovery(path: str) -> str:
    """What to do about a damaged database."""
    return (
        "stop syncd, keep a copy of the file, then try "
        f"`sqlite3 {path} .recover | sqlite3 recovered.db`"
    )
