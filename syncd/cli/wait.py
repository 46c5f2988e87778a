"""`syncd wait`: block until patches have arrived, or cannot."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

from syncd.cli.door import Door, read_row, readers_door
from syncd.cli.options import PATCH_ID, config_option, json_option, seconds, text
from syncd.cli.printing import many, plain
from syncd.cli.status import current
from syncd.cli.wire import TIMEOUT_S, Mute, WentAway
from syncd.core.explain import explanations, gist
from syncd.errors import SyncdError

LOOK_EVERY_S = 0.2
STATUS_EVERY_S = 3.0  # between looks at what it waits for; the first comes at once
LEAST_S = 1.0  # for an answer, however little time is left
ROWS = 1000  # looked at in one go
NAMED = 20  # patches that will not arrive, by name
TIMEOUT = 124

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """How far it is."""

    moving: int
    """Patches that may yet be delivered without anybody's help."""
    failed: tuple[str, ...] = ()
    """What will not arrive by itself, each in a few words."""
    files: int = 0
    """Files of the spool whose patches nobody has counted yet."""

    @property
    def goes_on(self) -> bool:
        """Looking again may show more."""
        return bool(self.moving or self.files)

    def __str__(self) -> str:
        """What is still to go."""
        counted = [many(self.moving, "patch")] if self.moving or not self.files else []
        return " and ".join([*counted, *([many(self.files, "file")] if self.files else [])])


@click.command("wait")
@click.option("--batch", metavar="NAME", type=text, help="The newest file of that name.")
@click.option("--run", metavar="RUN_ID", type=text, help="Everything for this run.")
@click.option("--patch", metavar="ID", type=PATCH_ID, help="This patch.")
@click.option("--all", "everything", is_flag=True, help="All there is, files in the spool too.")
@click.option("--timeout", metavar="S", type=seconds, help="Seconds; else forever.")
@json_option
@config_option
def wait_command(
    *,
    batch: str | None,
    run: str | None,
    patch: int | None,
    everything: bool,
    timeout: float | None,
    as_json: bool,
    config_path: str | None,
) -> int:
    """Block until everything chosen is delivered.

    Exit code 0 when it is; 1 when the rest will not arrive by itself, because it is dead, held,
    discarded by an operator or was rejected; 124 when the time is up.
    """
    match sum((batch is not None, run is not None, patch is not None, everything)):
        case 0:
            raise click.UsageError("say what to wait for: --batch, --run, --patch or --all")
        case 1:
            pass
        case _:
            raise click.UsageError("only one of --batch, --run, --patch and --all at a time")
    if batch is not None and (not batch or "/" in batch or batch in {".", ".."}):
        raise click.UsageError(f"--batch {plain(batch)!r}: must be the name of a file")
    to = readers_door(config_path)
    at: Callable[[Door], Look]
    if batch is not None:
        at = partial(_look_at_batch, name=batch)
    elif run is not None:
        at = partial(_look_at_run, run=run)
    elif patch is not None:
        at = partial(_look_at_patch, patch_id=patch)
    else:
        at = _look_at_all
    last, in_time = _wait(to, at, None if timeout is None else time.monotonic() + timeout)
    return _tell(last, in_time=in_time, as_json=as_json)


def _wait(to: Door, at: Callable[[Door], Look], deadline: float | None) -> tuple[Look | None, bool]:
    """The last look, if there was one, and whether it was the end of all movement.

    Whatever explains the waiting is said on stderr, once.
    """
    seen, status, status_at = None, None, 0.0
    said: set[str] = set()
    while True:
        here = replace(to, silence_s=_patience_s(deadline))
        try:
            if status is None or time.monotonic() >= status_at:
                status = current(here)
                status_at = time.monotonic() + STATUS_EVERY_S
            seen = at(here)
            ended = not seen.goes_on
            why = [] if ended and not seen.failed else [*explanations(status, goes_on=not ended)]
        except WentAway as error:  # the daemon is restarted, or stuck: look again
            ended = False
            why = [str(error)] if isinstance(error, Mute) else []
        for line in why:
            if gist(line) not in said:
                said.add(gist(line))
                click.echo(f"syncd: {plain(line)}", err=True)
        if ended:
            return seen, True
        if deadline is not None and time.monotonic() + LOOK_EVERY_S > deadline:
            return seen, False
        time.sleep(LOOK_EVERY_S)


def _patience_s(deadline: float | None) -> float:
    """How long an answer may take."""
    if deadline is None:
        return TIMEOUT_S
    return min(TIMEOUT_S, max(LEAST_S, deadline - time.monotonic()))


def _tell(look: Look | None, *, in_time: bool, as_json: bool) -> int:
    result, code = "delivered", 0
    if look is None or not in_time:
        result, code = "timeout", TIMEOUT
    elif look.failed:
        result, code = "failed", 1
    if as_json:
        found = {
            "result": result,
            "waiting": look and look.moving,
            "files": look and look.files,
            "failed": look.failed if look else (),
        }
        click.echo(json.dumps(found, ensure_ascii=False))
    elif look is None:
        click.echo("syncd: the time is up: nobody has answered", err=True)
    elif result == "timeout":
        click.echo(f"syncd: the time is up: {look} to go", err=True)
    elif look.failed:
        click.echo("\n".join(look.failed))
    else:
        click.echo("delivered")
    return code


def _look_at_patch(to: Door, patch_id: int) -> Look:
    found = to.one("patch", {"id": patch_id})
    if found is None:
        raise SyncdError(f"no patch {patch_id}: look with `syncd list`")
    return _look_at_rows([read_row(found)])


def _look_at_run(to: Door, run: str) -> Look:
    rows = list(to.rows("patches", {"run": run, "limit": ROWS}))
    if not rows and to.one("snapshot", {"run": run}) is None:
        raise SyncdError(f"no patch for run {plain(run)}: look with `syncd list`")
    return _look_at_rows(rows)


def _look_at_all(to: Door) -> Look:
    status = current(to)
    outbox = status["outbox"]
    moving, files = outbox["pending"] + outbox["in_flight"], status["spool"]["waiting"]
    if moving or files or not outbox["dead"] + outbox["held"]:
        return Look(moving, files=files)
    return Look(0, _named(_failures(to, {}), outbox["dead"] + outbox["held"]))


def _look_at_batch(to: Door, name: str) -> Look:
    # The spool first, in the order in which a file goes through it: it never moves back.
    on_its_way = any(_in_spool(to, folder, name) for folder in ("incoming", "taking"))
    newest = next(to.rows("batches", {"name": name, "limit": 1}), None)
    if on_its_way:
        return Look(0, files=1)
    if newest is None:
        if _in_spool(to, "rejected", name):
            return Look(0, (_rejected(to, name),))
        raise SyncdError(f"no batch of the name {plain(name)}: look with `syncd batches`")
    if newest["closed_at"] is None:
        return Look(max(1, newest["waiting"]))
    by_command = newest["source"] == "enqueue"
    taken = newest["accepted"] + newest["duplicates"]
    if newest["refused"] is not None and not taken and not by_command:
        return Look(0, (_rejected(to, name),))
    if moving := newest["waiting"] - newest["held"]:
        return Look(moving)
    rows = [
        row
        for row in _failures(to, {"batch": name})
        if row["created_at"] >= newest["created_at"]  # not of an older file of that name
    ]
    failed = _named(rows, max(len(rows), newest["held"] + newest["dead"]))
    if newest["refused"] is not None:
        what = "was not handed in" if by_command else "could not be read"
        failed += (f"the rest of {plain(name)} {what}: {plain(newest['refused'])}",)
    if newest["rejected"]:
        where = f"see {to.paths.spool}/rejected"
        if by_command:
            where = "`syncd enqueue` has named them"
        failed += (f"{many(newest['rejected'], 'line')} rejected: {where}",)
    return Look(0, failed)


def _look_at_rows(rows: list[Row]) -> Look:
    moving = sum(row["state"] in ("pending", "in_flight") for row in rows)
    failed = [row for row in rows if _has_failed(row)]
    return Look(moving, _named(failed, len(failed)))


def _failures(to: Door, query: dict[str, str | int]) -> list[Row]:
    states = ("dead", "held", "discarded") if query else ("dead", "held")
    return [
        row
        for state in states
        for row in to.rows("patches", {**query, "state": state, "limit": ROWS})
        if _has_failed(row)
    ]


def _has_failed(row: Row) -> bool:
    """A patch that was discarded because newer ones say it all has arrived with them."""
    if row["state"] == "discarded":
        return bool(row["reason"] != "superseded")
    return row["state"] in ("dead", "held")


def _named(rows: Iterable[Row], total: int) -> tuple[str, ...]:
    lines = [_name(row) for _, row in zip(range(NAMED), rows, strict=False)]
    if total > len(lines):
        lines.append(f"and {many(total - len(lines), 'patch')} more: look with `syncd list`")
    return tuple(lines)


def _name(row: Row) -> str:
    line = f"patch {row['id']} for {plain(row['workflow_run_id'])} is {row['state']}"
    error = row["last_error"]
    if row["state"] == "dead" and error:
        return f"{line}: {plain(error['code'])}: {plain(error['message'])}"
    return f"{line} by an operator"


def _rejected(to: Door, name: str) -> str:
    return f"{plain(name)} was rejected as a whole: see {to.paths.spool}/rejected"


def _in_spool(to: Door, folder: str, name: str) -> bool:
    return "/" not in name and os.path.lexists(to.paths.spool / folder / name)
