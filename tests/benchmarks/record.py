"""A run of the benchmark: the table as it grows, and the same as JSON for a later one."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import HEAD, Figure, line
from tests.benchmarks.machine import machine, versions


class NotHere(Exception):
    """This machine cannot measure that; the message says why."""


class Record:
    """Prints each figure when it is there, and keeps it."""

    def __init__(self, compare: Path | None) -> None:
        self._machine, self._versions = machine(), versions()
        self._before = _figures_of(compare) if compare else {}
        self._figures: list[Figure] = []
        self._failed: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._began = time.monotonic()
        about = self._machine | self._versions
        print(" · ".join(f"{name} {value}" for name, value in about.items()))
        print(HEAD, flush=True)

    def add(self, it: Figure) -> None:
        """One more line of the table."""
        self._figures.append(it)
        print(line(it, self._before.get(it.name)), flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part that may break off, or cannot be had here: the others are worth having."""
        try:
            yield
        except NotHere as reason:
            self._missing[name] = str(reason)
            print(f"{name}: not measured: {reason}", flush=True)
        except (AssertionError, OSError, RuntimeError, TimeoutError) as error:
            self._failed[name] = str(error)
            print(f"{name}: broken off: {error}", flush=True)

    def close(self, file: Path | None, **more: object) -> int:
        """The last line, and the file. 1 if something has broken off."""
        seconds = time.monotonic() - self._began
        judged = [it for it in self._figures if it.target]
        kept = sum(1 for it in judged if it.holds)
        print(f"{kept} of {len(judged)} targets hold; {seconds:.0f} s")
        if file:
            content = {
                "day": datetime.now(UTC).date().isoformat(),
                "machine": self._machine,
                "versions": self._versions,
                "seconds": seconds,
                **more,
                "failed": self._failed,
                "missing": self._missing,
                "figures": [it.as_json() for it in self._figures],
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return 1 if self._failed else 0


def _figures_of(file: Path) -> dict[str, float]:
    record: dict[str, Any] = json.loads(file.read_text())
    return {it["name"]: it["value"] for it in record["figures"]}
