"""One process at a time sets the states of patches: the lock beside the database."""

import asyncio
import fcntl
import os
from pathlib import Path

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
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_in_use(path: Path) -> bool:
    """Whether a process has the lock of a database, as far as this user may see that."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}.lock: {error.strerror}: check the folder's owner") from error


def _is_ours(lock: int) -> bool:
    """Whether it is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
