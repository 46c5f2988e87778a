"""`syncd list`: patches, newest trouble first."""

import time
from typing import Any

import click

from syncd.cli.door import door
from syncd.cli.options import config_option, json_option, text
from syncd.cli.printing import ago, many, seconds_since, span, table

STATES = ("pending", "deferred", "in_flight", "held", "dead", "delivered", "discarded")
MOST = 100_000  # the daemon holds an answer whole


@click.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only patches in this state.")
@click.option("--run", metavar="RUN_ID", type=text, help="Only patches of this run.")
@click.option("--batch", metavar="NAME", type=text, help="Only patches from this file.")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="At most so many."
)
@json_option
@config_option
def list_command(
    *,
    state: str | None,
    run: str | None,
    batch: str | None,
    limit: int,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Patches, newest trouble first.

    That is: dead, held, deferred, waiting, then what was settled last.
    """
    query = {"state": state, "run": run, "batch": batch, "limit": limit}
    to = door(config_path)
    if as_json:
        for line in to.lines("patches", query):
            click.echo(line)
        return
    now = time.time()
    patches = list(to.rows("patches", query))
    if not patches:
        click.echo("no patches")
        return
    columns = _DEAD if state == "dead" else _ALL
    if any(patch["suspect_until"] for patch in patches):
        columns = (*columns[:-1], "WATCHED", columns[-1])
    cells = [_cells(patch, now) for patch in patches]
    rows = [[row[name] for name in columns] for row in cells]
    click.echo("\n".join(table(columns, rows, right="ID TRIES")))
    if len(rows) == limit:
        click.echo(f"({many(limit, 'patch')} shown: --limit shows more)")


_ALL: tuple[str, ...] = ("ID", "RUN", "STATE", "TRIES", "NEXT", "ERROR", "BATCH", "AGE")
_DEAD: tuple[str, ...] = ("ID", "RUN", "TRIES", "BATCH", "AGE", "ERROR", "MESSAGE")


def _cells(patch: dict[str, Any], now: float) -> dict[str, object]:
    """What each column may hold. WATCHED: how long a late request may still set its run back."""
    watched_s = -(seconds_since(patch["suspect_until"], now) or 0.0)
    until_s = -(seconds_since(patch["next_attempt_at"], now) or 0.0)
    deferred = patch["state"] == "pending" and until_s > 0
    error = patch["last_error"] or {}
    return {
        "ID": patch["id"],
        "RUN": patch["workflow_run_id"],
        "STATE": "deferred" if deferred else patch["state"].replace("_", " "),
        "TRIES": patch["attempts"] + patch["failures"] or "",
        "NEXT": ago(patch["next_attempt_at"], now) if deferred else "",
        "ERROR": error.get("code") or patch["reason"] or "",
        "MESSAGE": error.get("message", ""),
        "BATCH": patch["batch"],
        "WATCHED": f"for {span(max(0.0, watched_s))}" if patch["suspect_until"] else "",
        "AGE": span(max(0.0, seconds_since(patch["created_at"], now) or 0.0)),
    }
