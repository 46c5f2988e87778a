"""One screen that says how things stand, and what to do where there is trouble."""

from collections.abc import Iterator
from typing import Any

import click

from syncd.cli.printing import ago, count, many, next_steps, paragraph, plain, seconds_since, span

PUT_BACK = ("put the database back", "until then nothing is taken in, and nothing resumed")

_COLOURS = {"running": "green", "stopped": "red", "blocked": "red"}  # else yellow


def screen(status: dict[str, Any], now: float, *, start: str = "syncd run") -> list[str]:
    """`status` as lines for people. `now` is seconds since the epoch.

    `start` is the command that starts the daemon on this machine.
    """
    lines = [
        *_head(status["daemon"], now),
        *_outbox(status, now),
        "",
        *_gate(status, now),
        *_spool(status["spool"]),
        *_troubles(status),
        *_last_error(status["last_error"], now),
    ]
    return [*lines, *next_steps(list(_advice(status, start)))]


def _head(daemon: dict[str, Any], now: float) -> Iterator[str]:
    state = click.style(daemon["state"], fg=_COLOURS.get(daemon["state"], "yellow"), bold=True)
    parts = [f"syncd {daemon['version']}  {state}"]
    if daemon["running"]:
        up_s = seconds_since(daemon["started_at"], now)
        up = "" if up_s is None else f", up {span(max(0.0, up_s))}"
        parts.append(f"pid {daemon['pid']}{up}")
    yield "  ·  ".join(parts)
    if daemon["reason"]:
        yield from paragraph("reason", plain(daemon["reason"]))


def _outbox(status: dict[str, Any], now: float) -> Iterator[str]:
    outbox = status["outbox"]
    yield ""
    notes = []
    if outbox["pending"] and outbox["oldest_pending_s"] is not None:
        notes.append(f"the oldest for {span(outbox['oldest_pending_s'])}")
    if outbox["deferred"]:
        notes.append(f"{count(outbox['deferred'])} deferred")
    yield _figure("pending", outbox["pending"], ", ".join(notes))
    yield _figure("in flight", outbox["in_flight"])
    yield _figure("held", outbox["held"], "by an operator" if outbox["held"] else "")
    yield _figure("dead", outbox["dead"], "refused, parked" if outbox["dead"] else "")
    cached = status["snapshots"]["count"]
    yield _figure("delivered", outbox["delivered"], f"{many(cached, 'run')} cached")
    yield _figure("discarded", outbox["discarded"])
    if outbox["suspect"]:
        late = "runs that a late request may set back: read again"
        yield _figure("watched", outbox["suspect"], late)


def _gate(status: dict[str, Any], now: float) -> Iterator[str]:
    gate, throughput = status["gate"], status["throughput"]
    if gate["rate_per_s"] is None:
        yield _line("limit", f"{gate['limit_per_s']:g}/s, {gate['max_in_flight']} at once")
    else:
        yield _line(
            "rate",
            f"{gate['rate_per_s']:g}/s of {gate['limit_per_s']:g}/s,"
            f" {gate['window']} of {gate['max_in_flight']} at once",
        )
        yield _line(
            "last minute",
            f"{many(_in_a_minute(throughput['requests_per_s_1m']), 'request')},"
            f" {many(_in_a_minute(throughput['delivered_per_s_1m']), 'patch')} delivered",
        )
        yield _line("breaker", _breaker(gate, now))
    yield _line("done", _eta(status))


def _in_a_minute(per_s: float) -> int:
    return round(60 * per_s)


def _breaker(gate: dict[str, Any], now: float) -> str:
    breaker = gate["breaker"].replace("_", " ")
    if breaker == "half-open":
        return "half-open, a probe is out"
    if not gate["closed_until"]:
        return f"{breaker}"
    if breaker == "closed":
        return f"closed; the API asked for silence, next request {ago(gate['closed_until'], now)}"
    return f"{breaker}, next probe {ago(gate['closed_until'], now)}"


def _eta(status: dict[str, Any]) -> str:
    eta_s = status["eta_s"]
    if eta_s is None:
        if status["daemon"]["running"] and status["gate"]["breaker"] is None:
            return "unknown: the daemon does not answer"
        moving = status["daemon"]["state"] in ("running", "waiting")
        return "unknown: nothing gets through" if moving else "not while nothing is sent"
    waits = eta_s > 0 or status["outbox"]["pending"]
    return f"in about {span(eta_s)}" if waits else "nothing waits"


def _spool(spool: dict[str, Any]) -> Iterator[str]:
    yield _line(
        "spool", f"{many(spool['waiting'], 'file')} waiting, {count(spool['rejected'])} rejected"
    )


def _troubles(status: dict[str, Any]) -> Iterator[str]:
    for trouble in status["troubles"]:
        if trouble != status["daemon"]["reason"]:  # which has been said
            yield from paragraph("trouble", plain(trouble))


def _last_error(error: dict[str, Any] | None, now: float) -> Iterator[str]:
    if error is None:
        return
    yield ""
    yield from paragraph("last error", f"{ago(error['at'], now)}: {plain(error['code'])}")
    yield from paragraph("", plain(error["message"]))
    if error.get("request_id"):
        yield from paragraph("", f"request id {plain(error['request_id'])}")


def _advice(status: dict[str, Any], start: str) -> Iterator[tuple[str, str]]:
    """Commands that would help, each with its reason."""
    daemon, outbox = status["daemon"], status["outbox"]
    if not daemon["running"]:
        yield start, "nothing is sent while the daemon is down"
    if daemon.get("moved"):  # one that an upgrade has not restarted yet does not tell
        yield PUT_BACK
    if daemon["state"] == "paused":
        yield "syncd resume", "sending is paused"
    if daemon["state"] == "blocked":
        yield "syncd check --online", "is it the token, the account or api.version?"
    # While nothing goes nobody is deferred for long: what was comes to wait for the same as all.
    if daemon["state"] == "running" and outbox["deferred"]:
        yield "syncd list --state deferred", "what is tried again, when, and why"
    elif outbox["deferred"] or (daemon["state"] == "waiting" and outbox["pending"]):
        yield "syncd list --state pending", "what waits, and what it was answered last"
    if outbox["dead"]:
        yield "syncd list --state dead", "what was refused, and why; then retry or discard"
    if outbox["held"]:
        yield "syncd list --state held", "then release or discard"


def _figure(name: str, number: int, note: str = "") -> str:
    return f"  {name:<12} {count(number):>10}   {note}".rstrip()


def _line(name: str, text: str) -> str:
    return f"  {name:<12} {text}"
