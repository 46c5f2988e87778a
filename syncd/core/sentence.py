"""How things stand in one sentence: what `systemctl status` shows beside the unit."""

from collections.abc import Iterator, Mapping
from typing import Any


def sentence(status: Mapping[str, Any]) -> str:
    """`status` in one line, the most important first.

    Without figures that change while nothing happens: the same text need not be sent again.
    """
    return "; ".join([*_state(status), *status["troubles"], *_waiting(status), *_dead(status)])


def _state(status: Mapping[str, Any]) -> Iterator[str]:
    daemon, error = status["daemon"], status["last_error"]
    if daemon["state"] == "running":
        return
    reason = daemon["reason"] or daemon["state"]
    if daemon["state"] == "blocked" and error is not None:
        reason = f"{reason} ({error['code']})"
    yield f"{daemon['state']}: {reason}"


def _waiting(status: Mapping[str, Any]) -> Iterator[str]:
    outbox = status["outbox"]
    waiting = outbox["pending"] + outbox["in_flight"]
    if not waiting:
        yield f"nothing waits, {_many(outbox['delivered'])} delivered"
        return
    yield f"{_many(waiting)} to deliver"
    if outbox["deferred"]:
        yield f"{outbox['deferred']:,} of them later, after a failure"
    if status["daemon"]["state"] != "running":
        return  # how fast it was tells nothing, and when it will be done nobody knows
    if (rate := status["throughput"]["delivered_per_s_1m"]) >= 0.05:
        yield f"{rate:.1f} a second"
    if (eta_s := status["eta_s"]) is not None:
        yield f"done in {_about(eta_s)}"


def _dead(status: Mapping[str, Any]) -> Iterator[str]:
    if dead := status["outbox"]["dead"]:
        yield f"{dead:,} dead (syncd list --state dead)"


def _many(patches: int) -> str:
    return "1 patch" if patches == 1 else f"{patches:,} patches"


def _about(seconds: float) -> str:
    """A duration to plan by."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return "about a minute" if seconds >= 45 else "less than a minute"
