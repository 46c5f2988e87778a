"""One daemon takes the files of a spool: a second one, on another database, is refused."""

import fcntl
import os
from pathlib import Path

from syncd.errors import SyncdError


def lock(spool: Path) -> int | None:
    """A descriptor that holds the lock for as long as it is open; None where there is no folder.

    A kill releases it. Raises SyncdError if another process holds it.
    """
    try:
        folder = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None  # intake says so, and waits for it
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise SyncdError(
            f"{spool}: another syncd takes in the files of this spool: set another spool.path"
        ) from error
    return folder
