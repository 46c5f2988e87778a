"""`syncd batches`: how far the files are that were taken in."""

import json
import time
from typing import Any

import click

from syncd.cli.door import readers_door
from syncd.cli.options import config_option, json_option, limit_option
from syncd.cli.printing import ago, count
from syncd.cli.rows import first_of, show
from syncd.cli.table import Column

NUMBERS = (
    "accepted",
    "waiting",
    "delivered",
    "held",
    "dead",
    "discarded",
    "duplicates",
    "rejected",
)
# What is nought everywhere would push the rest off a narrow screen.
_COLUMNS = (
    Column("BATCH", least=12, late=True),
    Column("SETTLED", right=True),
    Column("PATCHES", right=True),
    Column("WAITING", right=True, spare=5),
    Column("DELIVERED", right=True, spare=4),
    Column("HELD", right=True, rare=True),
    Column("DEAD", right=True, rare=True),
    Column("DISCARDED", right=True, spare=3, rare=True),
    Column("DUPLICATE", right=True, spare=1, rare=True),
    Column("REJECTED", right=True, rare=True),
    Column("BEGUN", spare=2),
)


@click.command("batches")
@limit_option(50)
@json_option
@config_option
def batches_command(*, limit: int, as_json: bool, config_path: str | None) -> None:
    """Progress of the files taken in, newest first.

    SETTLED is how much of what was taken in waits no more: delivered, dead or discarded.
    "refused" is one of which nothing was taken, "cut" one of which the rest will not come.
    """
    found = first_of(limit, readers_door(config_path).lines("batches", {"limit": limit + 1}))
    now = time.time()
    show(found, _COLUMNS, lambda line: _cells(line, now), as_json=as_json, none="no batches")


def _cells(line: bytes, now: float) -> list[object]:
    batch = json.loads(line)
    numbers = [count(batch[name]) for name in NUMBERS]
    return [batch["name"], _settled(batch), *numbers, ago(batch["created_at"], now)]


def _settled(batch: dict[str, Any]) -> str:
    if batch["taken_at"] is None:
        return "taking"
    if batch["refused"] is not None and not batch["accepted"]:
        return "refused"
    settled = batch["accepted"] - batch["waiting"]
    share = f"{100 * settled // batch['accepted'] if batch['accepted'] else 100}%"
    return f"cut, {share}" if batch["refused"] is not None else share
