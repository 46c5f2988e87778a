"""`syncd wait`: block until patches have arrived, or cannot."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import click

from syncd.cli.awaited import Look, look_at_all, look_at_batch, look_at_patch, look_at_run
from syncd.cli.door import Door, readers_door
from syncd.cli.options import PATCH_ID, config_option, json_option, seconds, text
from syncd.cli.printing import plain
from syncd.cli.status import current
from syncd.cli.wire import TIMEOUT_S, Mute, WentAway
from syncd.core.explain import explanations, gist

LOOK_EVERY_S = 0.2
STATUS_EVERY_S = 3.0  # between looks at what it waits for; the first comes at once
LEAST_S = 1.0  # for an answer, however little time is left
TIMEOUT = 124

At = Callable[[Door, float], Look]
"""A look at what is waited for, since the wait began by the daemon's clock."""


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

    Exit code 0 when it is, when nothing waits, or when newer patches have set all of it; 1 when the
    rest will not arrive by itself, because it is dead, held, discarded by an operator or was
    rejected; 124 when the time is up.
    With --run and --all, what was discarded before the wait began does not count.
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
    at: At
    if batch is not None:
        at = partial(look_at_batch, batch)
    elif run is not None:
        at = partial(look_at_run, run)
    elif patch is not None:
        at = partial(look_at_patch, patch)
    else:
        at = look_at_all
    to = readers_door(config_path)
    last, in_time = _wait(to, at, None if timeout is None else time.monotonic() + timeout)
    return _tell(last, in_time=in_time, as_json=as_json)


def _wait(to: Door, at: At, deadline: float | None) -> tuple[Look | None, bool]:
    """The last look, if there was one, and whether it was the end of all movement.

    Whatever explains the waiting is said on stderr, once.
    """
    seen, status, begun, status_at = None, None, 0.0, 0.0
    said: set[str] = set()
    while True:
        here = replace(to, silence_s=_patience_s(deadline))
        try:
            if status is None or time.monotonic() >= status_at:
                status = current(here)
                status_at = time.monotonic() + STATUS_EVERY_S
                # The daemon's own clock stamps what it writes, and may be a little off ours.
                begun = begun or _clock_of(status["daemon"])
            seen = at(here, begun)
            ended = not seen.goes_on
            why = [] if ended and not seen.failed else [*explanations(status, goes_on=not ended)]
            why += [seen.note] if seen.note else []
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


def _clock_of(daemon: dict[str, Any]) -> float:
    """One that an upgrade has not restarted yet does not tell; then it is ours."""
    now = daemon.get("now")
    return time.time() if now is None else datetime.fromisoformat(now).timestamp()


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
    elif look.superseded:
        result = "superseded"
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
    elif look.superseded:
        click.echo("superseded: newer patches have set all of it")
    else:
        click.echo("delivered" if look.anything else "nothing waits")
    return code
