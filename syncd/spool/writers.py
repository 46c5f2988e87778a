"""Whether a process has a file open for writing: Linux tells through a read lease."""

import errno
import fcntl
import os
import signal
import stat
from functools import cache
from pathlib import Path

from syncd.spool.ready import Writer

_CAP_LEASE = 28  # capabilities(7)


def writer_of(descriptor: int) -> Writer:
    """Ask for a read lease, which is granted only while nobody writes, and give it back at once.

    `descriptor` must be open for reading only. See fcntl(2), F_SETLEASE.
    """
    try:
        # Should a writer come just now, the kernel tells us by a signal: one that is ignored unless
        # asked for, instead of SIGIO, which would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.SOME if error.errno == errno.EAGAIN else Writer.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE


def may_ask(status: os.stat_result) -> bool:
    """Whether asking makes sense: leases on others' files are given to CAP_LEASE only, and opening
    them is seen by whoever watches the folder."""
    return stat.S_ISREG(status.st_mode) and (os.geteuid() == status.st_uid or _has_cap_lease())


@cache  # the daemon neither gets nor drops any
def _has_cap_lease() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "0 0")
    return bool(int(effective.split()[1], 16) >> _CAP_LEASE & 1)
