"""Files in a spool: claimed, ready, and all there are; and the clock that it goes by."""

from pathlib import Path

from syncd.spool import Candidate, Spool, Taken
from syncd.spool.ready import Stage

SETTLE_S = 2.0


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ready(spool: Spool, **stages: Stage) -> list[str]:
    return [candidate.name for candidate in spool.scan(stages).ready]


def claim(spool: Spool, name: str) -> Taken:
    taken = spool.claim(spool.open(Candidate(name, closed=True)))
    assert isinstance(taken, Taken)
    return taken


def take(spool: Spool, name: str, text: str = "x") -> None:
    """Drop a file and claim it."""
    (spool.incoming / name).write_text(text)
    claim(spool, name).file.close()


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}
