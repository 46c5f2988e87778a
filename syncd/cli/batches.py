"""`syncd batches`: how far the files are that were taken in."""

import time
from typing import Any

import click

from syncd.cli.door import door
from syncd.cli.options import config_option, json_option
from syncd.cli.printing import ago, count, table


@click.command("batches")
@json_option
@config_option
def batches_command(*, as_json: bool, config_path: str | None) -> None:
    """Progress of the files taken in, newest first; "refused" is one of which nothing was taken."""
    to = door(config_path)
    if as_json:
        for line in to.lines("batches", {}):
            click.echo(line)
        return
    now = time.time()
    rows = [_row(batch, now) for batch in to.rows("batches", {})]
    if not rows:
        click.echo("no batches")
        return
    header = (
        "BATCH", "DONE", "PATCHES", "WAITING", "DELIVERED", "DEAD", "DISCARDED", "DUPLICATE",
        "REJECTED", "BEGUN",
    )  # fmt: skip
    right = "DONE PATCHES WAITING DELIVERED DEAD DISCARDED DUPLICATE REJECTED"
    click.echo("\n".join(table(header, rows, right=right)))


def _row(batch: dict[str, Any], now: float) -> tuple[str, ...]:
    numbers = ("accepted", "waiting", "delivered", "dead", "discarded", "duplicates", "rejected")
    return (
        batch["name"],
        _done(batch),
        *(count(batch[name]) for name in numbers),
        ago(batch["created_at"], now),
    )


def _done(batch: dict[str, Any]) -> str:
    if batch["taken_at"] is None:
        return "taking"
    if batch["refused"] is not None and not batch["accepted"]:
        return "refused"
    settled = batch["accepted"] - batch["waiting"]
    return f"{100 * settled // batch['accepted'] if batch['accepted'] else 100}%"
