"""One process at a time sets the states of patches: the lock beside the database, and one on it.

The one beside it says who has it, and is there before the database is. But it is only a name, which
anybody can remove: another of the name would let a second daemon in. So whoever has it locks the
database's own file as well, which is the same for every name that leads there.
"""

import asyncio
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from syncd.store.access import beside, hindrance, linked, lost
from syncd.store.errors import StoreError, StoreInUse

PATIENCE_S = 5.0  # an operator's verb holds it for a moment, a daemon for its life
LOOK_S = 0.02
IN_USE = "{}: another syncd holds this database: stop it, or name another store.path"
# One byte of the file, far from those that SQLite locks. Such a lock is this descriptor's alone,
# and to be had wherever SQLite finds its own.
_BYTE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0)


async def acquire(path: Path, patience_s: float) -> int:
    """A descriptor that holds the lock of a database for as long as it is open.

    Whoever else has it is waited for. Raises StoreInUse once patience is at its end.
    """
    lock = _opened(path)
    try:
        ends_at = asyncio.get_running_loop().time() + patience_s
        # Nobody tells when it is free, and a thread that waits in flock() could not be called off.
        while not _is_ours(lock):
            if asyncio.get_running_loop().time() >= ends_at:
                raise StoreInUse(IN_USE.format(path))
            await asyncio.sleep(LOOK_S)
        with suppress(OSError):
            os.ftruncate(lock, 0)  # it may be signed by a daemon that was killed
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def alone_in(folder: Path, patience_s: float) -> Iterator[None]:
    """Keep everybody else who makes a database in the folder waiting, for a moment."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ends_at = time.monotonic() + patience_s
        while not _is_ours(lock):
            if time.monotonic() >= ends_at:
                raise StoreInUse(
                    f"{folder}: another process keeps this folder locked: `fuser -v {folder}` names"
                    " who has it open"
                )
            time.sleep(LOOK_S)
        yield
    finally:
        os.close(lock)


def hold(path: Path) -> int:
    """A descriptor that holds the database's own file, for whoever has its lock.

    It must be closed after SQLite's connections in this process: each closing of such a file, by
    whatever descriptor, takes the locks away that SQLite has on it.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        why = hindrance(path) or f"{path}: {error.strerror}: check its owner"
        raise StoreError(why) from error
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _BYTE)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise StoreInUse(IN_USE.format(path)) from error
        raise StoreError(
            f"{path}: {error.strerror}: this file system locks no files: move it to a local disk"
        ) from error
    return file


def let_go(locks: Sequence[int]) -> None:
    """Close descriptors that hold a database, the last one first: whoever has waited for the lock
    beside it finds the file free."""
    for lock in reversed(locks):
        os.close(lock)


def sign(lock: int) -> None:
    """Say in the file that it is a daemon that holds the lock: whoever cannot reach it must not
    take it for down."""
    with suppress(OSError):  # a full disk: it is taken for some process, as a verb is
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def is_in_use(path: Path) -> bool:
    """Whether a process has the lock of a database, as far as this user may see that."""
    return _held(path) is not None


def daemon_of(path: Path) -> int | None:
    """The process id of the daemon that has the lock of a database; None for anybody else."""
    signed = (_held(path) or b"").strip()
    return int(signed) if signed.isdigit() else None


def _held(path: Path) -> bytes | None:
    """What is written in the lock of a database while a process has it."""
    try:
        lock = os.open(beside(path, ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(lock, 32, 0)
    finally:
        os.close(lock)
    return None


def _opened(path: Path) -> int:
    lock = beside(path, ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if why := lost(path) or linked(path):
            raise StoreError(f"{path}: {why}") from error
        why = hindrance(path) or f"{lock}: {error.strerror}: check the folder's owner"
        raise StoreError(why) from error


def _is_ours(lock: int) -> bool:
    """Whether it is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
