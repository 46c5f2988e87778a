"""Stopping threads of a process one by one, as a hung disk or a deadlock does, and a signal cannot.

As a script, `threads.py PID` stops all but the first thread until the process has ended.
"""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ALL_KINDS = 0x40000000  # __WALL: threads, not only processes

FUTEX = {"x86_64": "202", "aarch64": "98"}[os.uname().machine]
FUTEX_WAITS = {0, 9}  # FUTEX_WAIT, FUTEX_WAIT_BITSET
FUTEX_COMMAND = 0x7F  # without the flags

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@contextmanager
def all_but_the_first_stopped(pid: int) -> Iterator[None]:
    """While the block runs, only the thread that the process began with goes on."""
    while not _wait_for_work(held := _stopped(pid), pid):
        # It may hold what the first thread needs to go on, the interpreter's lock above all.
        _let_go(held)
        time.sleep(0.001)
    try:
        yield
    finally:
        _let_go(held)


def _stopped(pid: int) -> list[int]:
    threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    held = [thread for thread in threads if thread != pid]
    for thread in held:
        _call(SEIZE, thread)
        _call(INTERRUPT, thread)
        os.waitpid(thread, ALL_KINDS)
    return held


def _wait_for_work(threads: list[int], pid: int) -> bool:
    """Whether each was stopped while it waited for as long as it takes, as for a queue's next item.

    One that waits with a limit may be the next to have the interpreter's lock, and one that wakes
    others, or is anywhere else in the kernel or out of it, may hold a lock meanwhile.
    """
    calls = [Path(f"/proc/{pid}/task/{thread}/syscall").read_text() for thread in threads]
    return all(_waits_without_limit(call.split()) for call in calls)


def _waits_without_limit(call: list[str]) -> bool:
    """Of `number address operation value limit ...`, as proc_pid_syscall(5) has it."""
    if call[0] != FUTEX:
        return False
    operation, limit = int(call[2], 16) & FUTEX_COMMAND, int(call[4], 16)
    return operation in FUTEX_WAITS and limit == 0


def _let_go(threads: list[int]) -> None:
    for thread in threads:
        with suppress(ProcessLookupError):
            _call(DETACH, thread)


def _call(request: int, thread: int) -> None:
    if _ptrace(request, thread, None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    with all_but_the_first_stopped(int(sys.argv[1])):
        print("stopped", flush=True)
        # A thread that is held has to be waited for, or the process can never end.
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, ALL_KINDS)
