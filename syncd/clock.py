"""The wall clock, kept steady: a stepped system clock neither hurries nor delays anything."""

import time
from collections.abc import Callable
from contextlib import suppress

Clock = Callable[[], float]


def since_boot() -> float:
    """Seconds since boot, time asleep included. Never steps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str | None:
    """Which boot of the machine this is; None where nobody tells."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return None


class Wall:
    """Seconds since the epoch, as the system's clock had it at the start, and steady from there.

    `stepped` tells by how much the system's clock has left it. Whoever calls `follow` must move the
    instants on disk by as much: they were taken from this clock.
    """

    def __init__(self, system: Clock = time.time, steady: Clock = since_boot) -> None:
        self._system = system
        self._steady = steady
        self._offset = system() - steady()

    def __call__(self) -> float:
        return self._offset + self._steady()

    def stepped(self) -> float:
        """Seconds by which the system's clock is ahead of this one."""
        return self._system() - self()

    @property
    def booted_at(self) -> float:
        """When this boot of the machine began, by this clock."""
        return self._offset

    def follow(self, step_s: float) -> None:
        """Go along with a step of the system's clock."""
        self._offset += step_s
