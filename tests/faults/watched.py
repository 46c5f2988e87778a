"""A daemon as it is seen from outside: what it says, and whether it refuses."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from processes import PATIENCE_S, Daemon

BIG = "x" * 8000  # two of them do not fit on one page


def until(
    true: Callable[[], object], daemon: Daemon, what: str, timeout: float = PATIENCE_S
) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"never: {what}\n{daemon.log()}"
        time.sleep(0.02)


def drained(daemon: Daemon) -> None:
    waited = daemon.syncd("wait", "--all", "--timeout", "30", timeout=40)

    assert waited.returncode == 0, f"{waited.stderr}\n{daemon.log()}"


def events(daemon: Daemon) -> list[str]:
    return [json.loads(line)["event"] for line in daemon.log().splitlines() if line[:1] == "{"]


def refused(daemon: Daemon) -> tuple[int, str]:
    """Run a daemon that is to refuse: its exit code, and its last words."""
    told = daemon.syncd("run")
    words = told.stderr.strip()
    assert len(words.splitlines()) == 1, told.stdout + told.stderr
    return told.returncode, words


def content(folder: Path) -> dict[str, bytes]:
    """All there is in a folder, but for locks and SQLite's index of its log."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in (".lock", ".db-shm")]
    return {str(path.relative_to(folder)): found for path in kept if (found := path.read_bytes())}
