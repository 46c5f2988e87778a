"""The standard streams: there and harmless, however whoever started us has left them."""

import os
import sys


def mend() -> None:
    """Those that are closed lead nowhere from now on; what sys.stdin tells of its own stays.

    Else the next file or socket to be opened is taken for one of them: uvloop aborts where it is
    given such a one, and what a library writes to stderr would go into the database.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  while we live
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  while we live
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale can show
