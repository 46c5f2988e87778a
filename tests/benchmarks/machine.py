"""This machine by name, and what a process of it has used, from /proc."""

import os
import platform
import sqlite3
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks import loop

PACKAGES = ("syncd", "aiohttp", "aiosqlite", "msgspec", "orjson", "uvloop", "zstandard")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line),
        platform.machine(),
    )
    memory_kib = int(_field(Path("/proc/meminfo").read_text(), "MemTotal"))
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def versions() -> dict[str, str]:
    """What they were measured with."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "loop": loop.name()}


@dataclass(frozen=True, slots=True)
class Used:
    """Processor time of a process so far, in seconds."""

    whole: float
    """By the kernel's own count: user, system, ended threads included, in steps of 10 ms."""
    threads: dict[int, float]
    """Of each living thread, to the nanosecond; the first one is the main thread."""
    waited: float = 0.0
    """The main thread could have run for so long, and had no core to run on."""

    def since(self, before: "Used") -> "Used":
        """What was used between two looks."""
        threads = {
            thread: used - before.threads.get(thread, 0.0) for thread, used in self.threads.items()
        }
        return Used(self.whole - before.whole, threads, self.waited - before.waited)


def used(pid: int) -> Used:
    """The processor time that a process has taken."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    threads, waited = {}, 0.0
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
        ran_ns, waited_ns, _ = (task / "schedstat").read_text().split()
        threads[int(task.name)] = int(ran_ns) / 1e9
        if int(task.name) == pid:
            waited = int(waited_ns) / 1e9
    whole = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return Used(whole, threads, waited)


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had resident."""
    return int(_field(Path(f"/proc/{pid}/status").read_text(), "VmHWM")) / 1024


def rss_mib(pid: int) -> float:
    """The memory that a process has resident now."""
    return int(_field(Path(f"/proc/{pid}/status").read_text(), "VmRSS")) / 1024


def _field(text: str, name: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
    return line.split()[1]
