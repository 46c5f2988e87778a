"""`syncd batches`: how far the files are that were taken in."""

import time
from typing import Any

import click

from syncd.cli.door import door
from syncd.cli.options import config_option, json_option
from syncd.cli.printing import ago, count, table

NUMBERS = {
    "PATCHES": "accepted",
    "WAITING": "waiting",
    "DELIVERED": "delivered",
    "HELD": "held",
    "DEAD": "dead",
    "DISCARDED": "discarded",
    "DUPLICATE": "duplicates",
    "REJECTED": "rejected",
}
ALWAYS = ("PATCHES", "WAITING", "DELIVERED")


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
    batches = list(to.rows("batches", {}))
    if not batches:
        click.echo("no batches")
        return
    # What is nought everywhere would push the rest off a narrow screen.
    numbers = {
        title: name
        for title, name in NUMBERS.items()
        if title in ALWAYS or any(batch[name] for batch in batches)
    }
    rows = [
        (
            batch["name"],
            _done(batch),
            *(count(batch[name]) for name in numbers.values()),
            ago(batch["created_at"], now),
        )
        for batch in batches
    ]
    right = " ".join(("DONE", *numbers))
    click.echo("\n".join(table(("BATCH", "DONE", *numbers, "BEGUN"), rows, right=right)))


def _done(batch: dict[str, Any]) -> str:
    if batch["taken_at"] is None:
        return "taking"
    if batch["refused"] is not None and not batch["accepted"]:
        return "refused"
    settled = batch["accepted"] - batch["waiting"]
    return f"{100 * settled // batch['accepted'] if batch['accepted'] else 100}%"
