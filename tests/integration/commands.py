"""What the tests of the commands share: what they print, and where they find things."""

import json
from pathlib import Path

from processes import syncd

DOWN = "syncd: the daemon is not running: this is what its database holds\n"
UNMOVED = "syncd: nothing moves until the daemon runs: waiting for it\n"


def database(folder: Path) -> Path:
    return folder / "state/syncd/syncd.db"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def enqueue(*runs: str, folder: Path) -> None:
    """Hand in a patch for each of the runs, in that order."""
    patches = "".join(json.dumps({"workflow_run_id": run, "name": "x"}) + "\n" for run in runs)
    syncd("enqueue", "--file", "-", "--format", "jsonl", folder=folder, input=patches)
