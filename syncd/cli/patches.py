"""`syncd list`: patches, newest trouble first."""

import time
from typing import Any

import click

from syncd.cli.door import read_row, readers_door
from syncd.cli.options import config_option, json_option, limit_option, text
from syncd.cli.printing import ago, seconds_since, span
from syncd.cli.rows import first_of, show
from syncd.cli.table import Column

STATES = ("pending", "deferred", "in_flight", "held", "dead", "delivered", "discarded")

# Ids are whole on every terminal: they are what the next command is given.
_ALL = (
    Column("ID", right=True),
    Column("RUN"),
    Column("STATE"),
    Column("ATTEMPTS", right=True, spare=3, rare=True),
    Column("FAILURES", right=True, spare=3, rare=True),
    Column("NEXT", spare=5, rare=True),
    Column("ERROR", least=8, rare=True),
    Column("BATCH", least=8, late=True, spare=1, rare=True),
    Column("WATCHED", spare=2, rare=True),
    Column("AGE", spare=4),
)
_DEAD = (
    Column("ID", right=True),
    Column("RUN"),
    Column("ATTEMPTS", right=True, spare=3, rare=True),
    Column("BATCH", least=8, late=True, spare=1, rare=True),
    Column("AGE", spare=4),
    Column("ERROR", least=8),
    Column("WATCHED", spare=2, rare=True),
    Column("MESSAGE", least=26, spare=5),
)


@click.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only patches in this state.")
@click.option("--run", metavar="RUN_ID", type=text, help="Only patches of this run.")
@click.option("--batch", metavar="NAME", type=text, help="Only patches from this file.")
@limit_option(50)
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
    query = {"state": state, "run": run, "batch": batch, "limit": limit + 1}
    found = first_of(limit, readers_door(config_path).lines("patches", query))
    columns, now = _DEAD if state == "dead" else _ALL, time.time()

    def cells(line: bytes) -> list[object]:
        row = _cells(read_row(line), now)
        return [row[column.title] for column in columns]

    show(found, columns, cells, as_json=as_json, none="no patches")


def _cells(patch: dict[str, Any], now: float) -> dict[str, object]:
    """What each column may hold. WATCHED: how long a late request may still set its run back.

    ATTEMPTS and FAILURES are not added up: those are the patch's own, these of its run in a row.
    """
    watched_s = -(seconds_since(patch["suspect_until"], now) or 0.0)
    until_s = -(seconds_since(patch["next_attempt_at"], now) or 0.0)
    deferred = patch["state"] == "pending" and until_s > 0
    error = patch["last_error"] or {}
    return {
        "ID": patch["id"],
        "RUN": patch["workflow_run_id"],
        "STATE": "deferred" if deferred else patch["state"].replace("_", " "),
        "ATTEMPTS": patch["attempts"] or "",
        "FAILURES": patch["failures"] or "",
        "NEXT": ago(patch["next_attempt_at"], now) if deferred else "",
        "ERROR": error.get("code") or patch["reason"] or "",
        "MESSAGE": error.get("message", ""),
        "BATCH": patch["batch"],
        "WATCHED": f"for {span(max(0.0, watched_s))}" if patch["suspect_until"] else "",
        "AGE": span(max(0.0, seconds_since(patch["created_at"], now) or 0.0)),
    }
