"""One process at a time sets the states of patches: the lock beside the database."""

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from syncd.store.access import hindrance
from syncd.store.errors import StoreError, StoreInUse

PATIENCE_S = 5.0  # an operator's verb holds it for a moment, a daemon for its life
LOOK_S = 0.02


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
                raise StoreInUse(
                    f"{path}: another syncd holds this database: stop it, or name another"
                    " store.path"
                )
            await asyncio.sleep(LOOK_S)
        with suppress(OSError):
            os.ftruncate(lock, 0)  # it may be signed by a daemon that was killed
    except BaseException:
        os.close(lock)
        raise
    return lock


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
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
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
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = hindrance(path) or "check the folder's owner"
        raise StoreError(f"{path}.lock: {error.strerror}: {why}") from error


def _is_ours(lock: int) -> bool:
    """Whether it is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
