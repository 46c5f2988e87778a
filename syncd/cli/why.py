"""`syncd why`: what a patch or a run waits for, cause by cause, and what to do about it."""

import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from syncd.cli.door import Door, read_row, readers_door
from syncd.cli.options import config_option, json_option, text
from syncd.cli.printing import (
    ago,
    count,
    many,
    named,
    next_steps,
    paragraph,
    plain,
    seconds_since,
    span,
)
from syncd.cli.screen import PUT_BACK
from syncd.cli.status import start_command
from syncd.errors import SyncdError

Row = dict[str, Any]
NEWEST_ID = 2**63 - 1
NAMED = 10  # patches in a line

_COLOURS = {"delivered": "green", "dead": "red"}  # else yellow
_REASONS = {
    "operator": "by an operator",
    "superseded": "newer patches have set all of it",
}

_AGAIN = {"unconfirmed", "fell_back"}  # the older word is in databases
_UNCONFIRMED = (
    "it was delivered, but a late request may have undone it since: the run, read back, does not"
    " show its values, or cannot be read"
)


@click.command("why")
@click.argument("asked", metavar="ID", type=text)
@json_option
@config_option
def why_command(*, asked: str, as_json: bool, config_path: str | None) -> None:
    """Why a patch, or a run, is where it is.

    What it waits for and what that waits for in turn, the last answer, the next try, its place in
    the queue, and when it will go. ID is that of a patch; else that of a run, of which the patch
    that has waited longest is told.
    """
    to = readers_door(config_path)
    found, of_run = _ask(to, asked)
    if as_json:
        click.echo(found)
    else:
        click.echo("\n".join(page(read_row(found), time.time(), of_run=of_run)))


def page(row: Row, now: float, *, of_run: bool = False) -> list[str]:
    """The chain as lines for people. `of_run`: it was the run that was asked about."""
    patch = row["patch"]
    lines = [*_head(row, now, of_run=of_run), ""]
    # Whatever stops all sending is what a person can do something about, and comes first.
    for cause in sorted(row["causes"], key=lambda cause: _SAYS[cause["cause"]] is not _daemon):
        name = cause["cause"].replace("_", " ")
        for line in _SAYS[cause["cause"]](cause, row, now).splitlines():
            lines += paragraph(name, line)
            name = ""
    if patch is not None:
        if _state(row) != "deferred":  # whose cause has said it already
            lines += _last_error(patch["last_error"], now)
        if patch["state"] == "pending" and patch["reason"] in _AGAIN:
            lines += paragraph("again", _UNCONFIRMED)
        if patch["leaves_out"]:
            left_out = ", ".join(map(plain, patch["leaves_out"]))
            lines += paragraph("without", f"{left_out}: set by newer patches")
        if patch["state"] == "pending":
            lines += paragraph("expected", _expected(row))
    lines += paragraph("run", _run(row["run"], now))
    return [*lines, *next_steps([*_advice(row)])]


def _ask(to: Door, asked: str) -> tuple[bytes, bool]:
    """What is known, and whether it was a run that was meant."""
    patch_id = _patch_id(asked)
    if patch_id is not None and (found := to.one("why", {"id": patch_id})) is not None:
        return found, False
    if (found := to.one("why", {"run": asked})) is not None:
        return found, True
    what = f"patch {patch_id}" if patch_id is not None else f"patch for run {plain(asked)}"
    raise SyncdError(f"no {what}: look with `syncd list`")


def _patch_id(asked: str) -> int | None:
    """The patch that may be meant; None for what can only be a run."""
    if not (asked.isascii() and asked.isdigit() and len(asked) < 20):
        return None
    patch_id = int(asked)
    return patch_id if str(patch_id) == asked and 1 <= patch_id <= NEWEST_ID else None


def _head(row: Row, now: float, *, of_run: bool) -> Iterator[str]:
    run, patch, waiting = plain(row["workflow_run_id"]), row["patch"], row["run"]["waiting"]
    if patch is None:
        yield f"nothing waits for {run}"
        return
    state = _state(row)
    state = click.style(state, fg=_COLOURS.get(state, "yellow"), bold=True)
    if patch["state"] in ("pending", "in_flight", "held"):
        state += f", here for {span(max(0.0, seconds_since(patch['created_at'], now) or 0.0))}"
    if of_run:
        yield f"{many(waiting, 'patch')} {'waits' if waiting == 1 else 'wait'} for {run}"
        yield f"patch {patch['id']} is the first, and {state}"
    else:
        yield f"patch {patch['id']} for {run} is {state}"


def _state(row: Row) -> str:
    deferred = any(cause["cause"] == "deferred" for cause in row["causes"])
    state: str = row["patch"]["state"]
    return "deferred" if deferred else state.replace("_", " ")


def _delivered(cause: Row, row: Row, now: float) -> str:
    others = [patch_id for patch_id in cause["patch_ids"] if patch_id != row["patch"]["id"]]
    when = ago(cause["since"], now)
    if not others:
        return f"{when}, by a request of its own"
    return f"{when}, by one request with {named(others[:NAMED], len(others))}"


def _settled(cause: Row, row: Row, now: float) -> str:
    reason = _REASONS.get(cause.get("reason", ""), plain(cause.get("reason")))
    return ", ".join(filter(None, [reason, ago(cause.get("since"), now)]))


def _dead(cause: Row, row: Row, now: float) -> str:
    attempts = row["patch"]["attempts"]
    after = f", after {attempts} attempts" if attempts > 1 else ""
    return f"parked {ago(cause['since'], now)}{after}"


def _in_flight(cause: Row, row: Row, now: float) -> str:
    ids = [patch_id for patch_id in cause["patch_ids"] if patch_id != row["patch"]["id"]]
    if len(ids) == cause["patches"]:
        carried = f"with {named(ids[:NAMED], len(ids))} is out, and only one at a time may be"
        return f"for {span(cause['for_s'])} a request of its run {carried}"
    others = f", together with {named(ids[:NAMED], len(ids))}" if ids else ""
    return f"out for {span(cause['for_s'])}{others}; it waits for the answer"


def _older(cause: Row, row: Row, now: float) -> str:
    patches, requests = cause["patches"], cause["requests"]
    go = "goes" if patches == 1 else "go"
    ids = named(cause["patch_ids"], patches)
    if not requests:
        return f"{ids} {go} with it in one request"
    more = " or more" if cause.get("at_least") else ""
    return f"{ids} of the same run {go} first, in {many(requests, 'request')}{more}"


def _apart(cause: Row, row: Row, now: float) -> str:
    key = f": {plain(cause['key'])}" if "key" in cause else ""
    (patch_id,) = cause["patch_ids"]
    which = "it" if patch_id == row["patch"]["id"] else str(patch_id)
    return f"{which} does not go along: {cause['reason']}{key}"


def _deferred(cause: Row, row: Row, now: float) -> str:
    # While nothing goes that instant brings no try.
    next_try = "next try" if row["daemon"]["state"] == "running" else "its own wait ends"
    return (
        f"{many(cause['failures'], 'failure')} of its run in a row;"
        f" {next_try} {ago(cause['until'], now)}\n"
        f"{ago(cause['since'], now)}: {plain(cause['reason'])}"
    )


def _daemon(cause: Row, row: Row, now: float) -> str:
    """Why sending stands still, and where the API is the reason, what it has said."""
    text, error = plain(cause.get("reason")), row["daemon"]["last_error"]
    if "until" in cause:
        until = {
            "stopped": f"; the API has asked for silence until {cause['until']},",
            "blocked": "; next probe",
        }.get(cause["cause"], ",")
        text += f"{until} {ago(cause['until'], now)}"
    if error is not None:
        text += f"\n{ago(error['at'], now)}: {plain(error['code'])}: {plain(error['message'])}"
    return text


def _turn(cause: Row, row: Row, now: float) -> str:
    place = row["place"]
    if place is None or not place["requests_ahead"]:
        return "it is the next to go"
    requests = place["requests_ahead"]
    more = "more than " if place["at_least"] else "about " if place["about"] else ""
    go = (
        f"{more}{many(requests, 'request')} of other runs {'goes' if requests == 1 else 'go'} first"
    )
    least = "more than " if place["at_least"] else ""
    ahead, waiting = f"{least}{count(place['ahead'])}", many(place["waiting"], "patch")
    return f"{go}; {ahead} of the {waiting} that wait stand before its run"


def _watched(cause: Row, row: Row, now: float) -> str:
    return f"{cause['reason']} {ago(cause['until'], now)}"


_SAYS: dict[str, Callable[[Row, Row, float], str]] = {
    "delivered": _delivered,
    "watched": _watched,
    "discarded": _settled,
    "dead": _dead,
    "held": _settled,
    "in_flight": _in_flight,
    "older": _older,
    "apart": _apart,
    "deferred": _deferred,
    **dict.fromkeys(("stopped", "draining", "paused", "blocked", "waiting"), _daemon),
    "turn": _turn,
}


def _last_error(error: Row | None, now: float) -> Iterator[str]:
    """What the patch itself was told last."""
    if error is None:
        return
    yield from paragraph("last error", f"{ago(error['at'], now)}: {plain(error['code'])}")
    yield from paragraph("", plain(error["message"]))
    if error.get("request_id"):
        yield from paragraph("", f"request id {plain(error['request_id'])}")


def _expected(row: Row) -> str:
    if row["expected_s"] is None:
        moving = row["daemon"]["state"] in ("running", "waiting")
        return "unknown: nothing gets through" if moving else "not while nothing is sent"
    seconds = row["expected_s"]
    more = "more than " if any("at_least" in cause for cause in row["causes"]) else "about "
    return f"in {more}{span(seconds)}" if seconds >= 1 else "at once"


def _run(run: Row, now: float) -> str:
    waiting = run["waiting"]
    parts = [f"{many(waiting, 'patch')} waiting" if waiting else "nothing waits"]
    parts += [f"{count(run[state])} {state}" for state in ("held", "dead") if run[state]]
    cached = run["snapshot"]
    parts.append(f"cached {ago(cached['fetched_at'], now)}" if cached else "not cached yet")
    if run["suspect_until"]:
        parts.append(f"watched: read again {ago(run['suspect_until'], now)}")
    return ", ".join(parts)


def _advice(row: Row) -> Iterator[tuple[str, str]]:
    """Commands that would help, each with its reason."""
    patch, daemon, run = row["patch"], row["daemon"]["state"], row["workflow_run_id"]
    run = plain(shlex.quote(run))
    state = None if patch is None else patch["state"]
    if state == "dead":
        yield f"syncd retry {patch['id']}", "it goes again"
        yield f"syncd discard {patch['id']}", "it will never be delivered"
    elif state == "held":
        yield f"syncd release {patch['id']}", "it goes"
        yield f"syncd discard {patch['id']}", "it will never be delivered"
    elif state == "pending":
        if daemon == "stopped":
            yield start_command(), "nothing is sent while the daemon is down"
        if row["daemon"].get("moved"):
            yield PUT_BACK
        if daemon == "paused":
            yield "syncd resume", "sending is paused"
        elif daemon == "blocked":
            yield "syncd check --online", "is it the token, the account or api.version?"
        if row["daemon"].get("probe") == "awaited":
            yield f"syncd retry {patch['id']}", "ask the API now"
        elif _state(row) == "deferred" and daemon == "running":
            yield f"syncd retry --run {run}", "try now"
    if row["run"]["dead"] + row["run"]["held"] and state not in ("dead", "held"):
        yield f"syncd list --run {run}", "what is dead or held"
    if state == "delivered":
        yield f"syncd show {run}", "the run as it came back last"
