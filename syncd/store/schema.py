"""The database as a file: opening it, its settings, its migrations."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib import resources
from pathlib import Path

from syncd.store import integrity
from syncd.store.access import beside, hindrance, linked, lost
from syncd.store.errors import (
    SQLITE_ERRORS,
    SqliteError,
    StoreBusy,
    StoreError,
    recovery,
    translated,
)
from syncd.store.lock import alone_in

BUSY_TIMEOUT_S = 5.0
AGAIN_S = 0.005
LOOKED_THROUGH_BYTES = 16 << 20  # a larger file would make every start slow: `syncd check` does it
APPLICATION_ID = 0x73796E63  # "sync": `file` and `check` know the database by it


NOT_YET = "{}: no database here yet: start `syncd run` or enqueue a patch"
NOT_OURS = "{}: not a database of syncd: name another file in store.path"
NEWER = "{}: schema version {} is newer than this syncd, which knows {}: upgrade syncd"
OLDER = "{}: schema version {}: the next `syncd run` brings it to {}, which this syncd reads"
GROUP_MODES = {"none": 0o600, "read": 0o640, "write": 0o660}


def open_writer(path: Path, group_access: str | None = None) -> sqlite3.Connection:
    """Open the database for writing, made and brought up to date as needed.

    Raises StoreError for a file that is not ours, newer than this syncd, or corrupt; such a file is
    left untouched. Of a file over LOOKED_THROUGH_BYTES only what is needed here is looked at.
    `group_access` is a key of GROUP_MODES; None leaves the mode of a file that is there as it is.
    SQLite gives the -wal and -shm files the mode of the database.
    """
    prepare(path, group_access)
    db = _connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        _settle_in(db, path)
    except SQLITE_ERRORS as error:
        db.close()
        raise translated(error, str(path)) or error from error
    except BaseException:
        db.close()
        raise
    return db


def prepare(path: Path, group_access: str | None = None) -> None:
    """See to it that there is a database to open for writing, and who may. Raises StoreError as
    `open_writer`."""
    there = is_there(path)
    if why := lost(path) or linked(path):
        raise StoreError(f"{path}: {why}")
    try:
        if not there:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with alone_in(beside(path, "").parent, BUSY_TIMEOUT_S):
                if not is_there(path):  # nobody was faster
                    _make(path, GROUP_MODES[group_access or "none"])
        elif group_access is not None:
            _set_mode(path, GROUP_MODES[group_access])
    except SQLITE_ERRORS as error:
        raise translated(error, str(path)) or error from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: check the folder and its owner") from error


def is_there(path: Path) -> bool:
    """Whether there is a file. Raises StoreError for what is none, such as a folder, and where that
    cannot be seen: the file may well be there."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise StoreError(f"{path}: permission denied: run this as its owner") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: name another file in store.path") from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path}: not a file: name another one in store.path")
    return True


def open_reader(path: Path, *, also_older: bool = False) -> sqlite3.Connection:
    """Open the database for reading only. Raises StoreError where there is none to read.

    One of an older schema is none, unless `also_older`: only a writer brings it up to date.
    """
    there = is_there(path)
    if why := lost(path):
        raise StoreError(f"{path}: {why}")
    if not there:
        raise StoreError(NOT_YET.format(path))
    try:
        db, found = _opened(path, "mode=ro")
    except SQLITE_ERRORS as error:
        known = translated(error, str(path))
        if type(known) is StoreError:  # damaged, for everybody
            raise known from error
        if not _nobody_else_has_it(path, error):
            advice = hindrance(path) or "read it as its owner, or ask the daemon"
            raise StoreError(f"{path}: {error}: {advice}") from error
        try:
            db, found = _opened(path, "mode=ro&immutable=1")
        except SQLITE_ERRORS:
            raise known or error from error
    if found != newest() and not (also_older and 0 < found < newest() and _is_ours(db)):
        tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        ours = _is_ours(db)
        db.close()
        if not tables:
            raise StoreError(NOT_YET.format(path))
        if not ours:
            raise StoreError(NOT_OURS.format(path))
        raise StoreError((OLDER if found < newest() else NEWER).format(path, found, newest()))
    return db


def locked(path: Path, patience_s: float) -> StoreBusy | None:
    """What to say of another process that keeps the database locked for longer than that.

    It changes nothing while a reader of this process has the database open: the last to close it
    would fold the log back. Whether this user may write at all is another question.
    """
    db = _connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        db.execute(f"PRAGMA busy_timeout = {int(1000 * patience_s)}")
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
    except SQLITE_ERRORS as error:
        known = translated(error, str(path))
        return known if isinstance(known, StoreBusy) else None
    finally:
        db.close()
    return None


def _opened(path: Path, how: str) -> tuple[sqlite3.Connection, int]:
    db = _connect(f"{path.absolute().as_uri()}?{how}")
    try:
        return db, version(db)
    except BaseException:
        db.close()
        raise


def _nobody_else_has_it(path: Path, error: SqliteError) -> bool:
    """Whether SQLite only lacks room for its own files (a full or read-only disk), and the whole
    content is in the database: whoever writes has a log beside it that is not empty."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    no_room = code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}
    log = beside(path, "-wal")
    return no_room and not (log.exists() and log.stat().st_size)


def newest() -> int:
    """The schema version that this syncd writes."""
    return max(number for number, _ in _migrations())


def _connect(uri: str) -> sqlite3.Connection:
    # The writer's thread is aiosqlite's; a connection is still used by one thread at a time.
    db = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    # A producer can have SQLite store text that is not UTF-8, and no CHECK can see it: such a row
    # must not make the rows beside it unreadable.
    db.text_factory = _text
    return db


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _make(path: Path, mode: int) -> None:
    """Make the database whole under another name first: so an empty one is never one of ours."""
    real, new = beside(path, ""), beside(path, ".new")
    for left in (new, beside(new, "-wal"), beside(new, "-shm"), beside(new, "-journal")):
        left.unlink(missing_ok=True)  # of a start that was cut off
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode))
    new.chmod(mode)  # whatever the umask
    with closing(_connect(f"{new.as_uri()}?mode=rw")) as db:
        _settle_in(db, new)
    new.rename(real)  # nothing is in it yet; the first commit syncs the folder too


def _set_mode(path: Path, mode: int) -> None:
    for file in (path, beside(path, "-wal"), beside(path, "-shm")):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) != mode:
            file.chmod(mode)


def version(db: sqlite3.Connection) -> int:
    """The schema version of the database."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _is_ours(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)


def _settle_in(db: sqlite3.Connection, path: Path) -> None:
    found = version(db)
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and not _is_ours(db):
        raise StoreError(NOT_OURS.format(path))
    if found > newest():
        raise StoreError(NEWER.format(path, found, newest()))
    if tables and path.stat().st_size <= LOOKED_THROUGH_BYTES:
        for damage in integrity.damage(db, 1):
            raise StoreError(f"{path}: damaged: {damage}: {recovery(str(path))}")
    if not tables:
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    _keep_a_log(db)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cache_size = -16384")
    db.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    for number, script in _migrations():
        if number > found:
            _migrate(db, number, script)


def _keep_a_log(db: sqlite3.Connection) -> None:
    """Switch to WAL. Of several that do so at once SQLite refuses some without any patience."""
    ends_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= ends_at:
                raise
        time.sleep(AGAIN_S)


def _migrate(db: sqlite3.Connection, number: int, script: str) -> None:
    """Take the schema to a version, unless somebody else has done so meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if version(db) < number:
            for statement in _statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit what was begun before it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@cache
def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("syncd.store") / "migrations"
    scripts = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (int(entry.name.split("_")[0]), entry.read_text(encoding="utf-8")) for entry in scripts
    )
