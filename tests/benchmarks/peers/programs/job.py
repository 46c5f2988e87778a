"""What every program is given, and what it says when it is through.

`PROGRAM URL PATCHES FOLDER IN_FLIGHT`: it reads the patches (`[run, name, metadata]`, one a line),
queues them in its own way, and only then begins to measure. It prints the seconds until the last
answer was recorded, and how many it finds recorded.
"""

import json
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """What is to be sent to a run."""

    id: int
    run: str
    body: bytes


@dataclass(frozen=True)
class Job:
    """The work."""

    url: str
    patches: list[Patch]
    folder: Path
    in_flight: int

    def target(self, run: str) -> str:
        """Where a run's patches go."""
        return f"{self.url}/workflow_runs/{run}"


def given() -> Job:
    """The job of the command line."""
    url, patches, folder, in_flight = sys.argv[1:]
    rows = [json.loads(line) for line in Path(patches).read_text().splitlines()]
    bodies = [
        Patch(number, run, f'{{"name":{json.dumps(name)},"metadata":{metadata}}}'.encode())
        for number, (run, name, metadata) in enumerate(rows)
    ]
    return Job(url, bodies, Path(folder), int(in_flight))


def confirmed(answer: bytes, run: str) -> str:
    """The WorkflowRun of an answer, which must be the one that was asked for."""
    found = json.loads(answer)["workflowRun"]
    if found["id"] != run:
        raise ValueError(f"the answer to {run} is about {found['id']}")
    return json.dumps(found)


def done(began: float, recorded: int) -> None:
    """Say how it went."""
    print(json.dumps({"seconds": time.monotonic() - began, "recorded": recorded}), flush=True)


class Answers:
    """Where those record who have no place of their own for results: a commit for each."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(
            folder / "answers.db", isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE answers (patch INTEGER PRIMARY KEY, run TEXT, body TEXT)")

    def record(self, patch: int, run: str, body: str) -> None:
        """On disk when this returns."""
        self._db.execute("INSERT INTO answers VALUES (?, ?, ?)", (patch, run, body))

    def count(self) -> int:
        """How many there are."""
        return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])
