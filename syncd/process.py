"""The process that the daemon lives in: its limits, its event loop, its age, its garbage."""

import asyncio
import faulthandler
import gc
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress

GC_ALLOCATIONS = 50_000  # between looks for garbage; Python's own 700 takes a tenth of the time


def prepare() -> None:
    """No core, which would hold the token; but where each thread stood, if a signal ends it."""
    with suppress(OSError, ValueError):  # under systemd the unit has seen to it, and forbids this
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # a stderr that is no file
        faulthandler.enable()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed: a third more requests on a core."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def started() -> float:
    """When this process began, on the monotonic clock. Another may have sent until then."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
        # The command's name, in parentheses, may hold anything; what follows it is fixed.
        ticks = float(stat.read().rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age_s)


def collect_rarely() -> None:
    """What is here now stays; a patch on its way makes objects by the hundred, hardly a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 100)
