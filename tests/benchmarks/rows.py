"""The patches that are sent: random run ids, some two hundred bytes each, as in daily use."""

import random
from collections.abc import Sequence

Row = tuple[str, str, str]
"""Run, name, metadata: what a producer inserts."""


def run_ids(count: int, seed: int = 0) -> list[str]:
    """Ids in no order, as the vendor's are."""
    chance = random.Random(seed)
    return [f"workflow_run_{chance.getrandbits(64):016x}" for _ in range(count)]


def rows(count: int, runs: Sequence[str] | None = None, seed: int = 0) -> list[Row]:
    """Patches for these runs in turn, or each for a run of its own."""
    runs = run_ids(count, seed) if runs is None else runs
    return [
        (runs[number % len(runs)], f"invoice {number}", metadata(number)) for number in range(count)
    ]


def metadata(number: int) -> str:
    """What a patch says."""
    return (
        f'{{"internal_id":"id_{number:09d}","customer":"customer {number % 977}",'
        f'"amount":{number / 100:.2f},"currency":"EUR","batch":"2025-{number % 12 + 1:02d}",'
        f'"approved":{"true" if number % 3 else "false"}}}'
    )


def body_of(row: Row) -> bytes:
    """The request that delivers a patch."""
    return f'{{"name":"{row[1]}","metadata":{row[2]}}}'.encode()
