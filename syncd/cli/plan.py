"""`syncd plan`: the requests that would go next, and what shares them; sends nothing."""

from collections.abc import Iterator
from typing import Any

import click

from syncd.cli.door import Door, read_row, readers_door
from syncd.cli.options import Whole, config_option, json_option
from syncd.cli.printing import many, named, plain, span, wrapped
from syncd.cli.status import current
from syncd.cli.table import Column, cut, table

MOST = 500  # the daemon holds an answer whole
NAMED = 12  # patches of one request
INDENT = "     "


@click.command("plan")
@click.option(
    "--limit",
    type=Whole("a limit", 1, MOST),
    default=20,
    show_default=True,
    help="At most so many requests.",
)
@json_option
@config_option
def plan_command(*, limit: int, as_json: bool, config_path: str | None) -> None:
    """The requests that would go next, in their order; sends nothing.

    With the patches that each one carries, and why the next patch of the run goes apart. As if
    every request were answered at once, and nothing else arrived.
    """
    to = readers_door(config_path)
    if as_json:
        for line in to.lines("plan", {"limit": limit}):
            click.echo(line)
        return
    requests = [*to.lines("plan", {"limit": limit})]
    click.echo("\n".join(_page(to, requests, limit)))


def _page(to: Door, requests: list[bytes], limit: int) -> Iterator[str]:
    status = current(to)
    daemon, outbox = status["daemon"], status["outbox"]
    if daemon["state"] != "running" and daemon["reason"]:
        yield f"{daemon['state']}: {plain(daemon['reason'])}"
        yield ""
    if requests:
        yield from _requests(requests)
    elif outbox["pending"] + outbox["in_flight"] == 0:
        yield "no requests: nothing waits"
    elif outbox["pending"] > outbox["deferred"]:
        yield "no requests: the first of what waits is deferred"
    else:
        yield "no requests: what waits is deferred, or in flight"
    if len(requests) == limit:
        yield f"({many(limit, 'request')} shown: --limit shows more)"
    if outbox["deferred"]:
        deferred = many(outbox["deferred"], "patch")
        yield f"({deferred} deferred after a failure: `syncd list --state deferred`)"


def _requests(lines: list[bytes]) -> Iterator[str]:
    rows = [*map(read_row, lines)]
    timed = any(row["expected_s"] is not None for row in rows)
    columns = [
        Column("#", right=True),
        *([Column("IN", right=True)] if timed else []),
        Column("RUN"),
        Column("PATCHES", least=10),
    ]
    cells = [
        (
            row["turn"],
            *([_in(row["expected_s"])] if timed else []),
            row["workflow_run_id"],
            named(row["patch_ids"][:NAMED], len(row["patch_ids"])),
        )
        for row in rows
    ]
    head, *heads = table(columns, cells)
    yield head
    for line, row, title in zip(lines, rows, heads, strict=True):
        yield title
        yield from _details(row, line)


def _in(seconds: float) -> str:
    return span(seconds) if seconds >= 0.05 else "now"


def _details(row: dict[str, Any], line: bytes) -> Iterator[str]:
    if row["parked"] is not None:
        yield f"{INDENT}is parked instead: {row['parked']}"
    else:
        yield cut(f"{INDENT}{plain(_body(line))}")
    if (apart := row["apart"]) is not None:
        key = "" if apart["key"] is None else f": {plain(apart['key'])}"
        yield from wrapped(f"{apart['patch_id']} goes apart: {apart['reason']}{key}", INDENT)


def _body(line: bytes) -> str:
    """As it would be sent. It is the row's last value, and cut out, not decoded.

    Nothing else keeps numbers as they were written, and takes all that SQLite takes for JSON.
    """
    return line.partition(b',"body":')[2].removesuffix(b"}").decode()
