"""Patches as producers would write them: the same ones as JSON, JSONL, CSV and rows."""

import csv
import gzip
import io
import json
import random
from collections.abc import Sequence
from typing import Any

Patch = dict[str, Any]


def patches(count: int, runs: int, seed: int, tag: str) -> list[Patch]:
    """Patches over some runs, with keys that collide; each carries a mark that no other has."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        metadata: dict[str, Any] = {"mark": f"{tag}-{number}"}
        for key in chance.sample(["invoice", "batch", "customer", "amount"], 2):
            metadata[key] = chance.choice([number, f"v{number}", None, number / 8, True])
        patch: Patch = {
            "workflow_run_id": f"workflow_run_{chance.randrange(runs):04d}",
            "metadata": metadata,
        }
        if chance.random() < 0.3:
            patch["name"] = f"{tag} {number}"
        made.append(patch)
    return made


def as_json(made: Sequence[Patch]) -> bytes:
    return json.dumps(made, indent=1).encode()


def as_jsonl(made: Sequence[Patch]) -> bytes:
    return b"".join(json.dumps(patch).encode() + b"\n" for patch in made)


def as_csv(made: Sequence[Patch]) -> bytes:
    """Values as JSON cells, so that they arrive with their types."""
    keys = sorted({key for patch in made for key in patch["metadata"]})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["workflow_run_id", "name", *(f"metadata:json.{key}" for key in keys)])
    for patch in made:
        cells = [
            json.dumps(patch["metadata"][key]) if key in patch["metadata"] else "" for key in keys
        ]
        writer.writerow([patch["workflow_run_id"], patch.get("name", ""), *cells])
    return text.getvalue().encode()


def as_rows(made: Sequence[Patch]) -> list[tuple[str, str | None, str | None]]:
    return [(p["workflow_run_id"], p.get("name"), json.dumps(p["metadata"])) for p in made]


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content)


def marks(made: Sequence[Patch]) -> list[str]:
    return [patch["metadata"]["mark"] for patch in made]
