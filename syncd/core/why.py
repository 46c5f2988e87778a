"""Why a patch is where it is: the chain of causes, the nearest first, and when it will go."""

from dataclasses import dataclass
from enum import StrEnum

from syncd.core import estimate
from syncd.core.plan import Apart
from syncd.core.sending import Out, Sending


class Cause(StrEnum):
    """What became of a patch, or what it waits for. Those of sending are the daemon's states."""

    DELIVERED = "delivered"
    WATCHED = "watched"
    DISCARDED = "discarded"
    DEAD = "dead"
    HELD = "held"
    IN_FLIGHT = "in_flight"
    OLDER = "older"
    APART = "apart"
    DEFERRED = "deferred"
    STOPPED = "stopped"
    DRAINING = "draining"
    PAUSED = "paused"
    BLOCKED = "blocked"
    WAITING = "waiting"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class Link:
    """One cause, with the numbers that it has. Instants are seconds since the epoch."""

    cause: Cause
    reason: str | None = None
    key: str | None = None
    patch_ids: tuple[int, ...] = ()
    patches: int | None = None
    """How many there are, where `patch_ids` names only the first of them."""
    requests: int | None = None
    at_least: bool | None = None
    """There are more: counting had an end."""
    failures: int | None = None
    since: float | None = None
    for_s: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What of other runs goes before a patch."""

    patches: int
    """Those that stand before its run, by priority, then by arrival."""
    requests: int
    """Those that go before the request with it."""
    at_least: bool = False
    """There are more: counting had an end."""
    about: bool = False
    """The requests are reckoned, one for each run; folding may need more."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one patch."""

    patch_id: int
    state: str
    """As it is on disk: a patch in flight is pending there."""
    reason: str | None = None
    settled_at: float | None = None
    together: tuple[int, ...] = ()
    """The patches that the same answer has delivered."""
    watched_until: float | None = None
    """A late request may set its run back until then."""
    out: Out | None = None
    """The request of its run that is out."""
    older: tuple[int, ...] = ()
    """The first of the patches of its run that wait before it, those that are out left aside …"""
    older_patches: int = 0
    """… and how many there are."""
    own_requests: int = 0
    """Requests of its own run that go before the one with it."""
    own_at_least: bool = False
    """There are more of them: counting had an end."""
    apart: Apart | None = None
    """Where the last of these ends."""
    due_at: float | None = None
    """Its run is in trouble, and is tried again then."""
    failures: int = 0
    error: str | None = None
    """What the last of them was …"""
    failed_at: float | None = None
    """… and when."""
    ahead: Ahead | None = None
    """None for what is no longer waiting for its turn."""


def chain(facts: Facts, sending: Sending, now: float) -> list[Link]:
    """The causes, each followed by what that one waits for. Never empty."""
    match facts.state:
        case "delivered":
            return _delivered(facts)
        case "pending":
            return _pending(facts, sending, now)
        case _:
            return [Link(Cause(facts.state), facts.reason, since=facts.settled_at)]


def expected_s(facts: Facts, sending: Sending, now: float) -> float | None:
    """Seconds until its request goes, if nothing fails; None where that is in nobody's hands."""
    rate = sending.requests_per_s
    if facts.ahead is None or not rate:
        return None
    turn_s = estimate.turn_s(facts.ahead.requests, sending, now) or 0.0
    due_s = max(0.0, (facts.due_at or now) - now)
    return max(turn_s, due_s) + facts.own_requests / rate


def _delivered(facts: Facts) -> list[Link]:
    links = [
        Link(
            Cause.DELIVERED,
            patch_ids=facts.together,
            patches=len(facts.together),
            since=facts.settled_at,
        )
    ]
    if facts.watched_until is not None:
        reason = "a request that failed may yet be applied, late; the run is read again"
        links.append(Link(Cause.WATCHED, reason, until=facts.watched_until))
    return links


def _pending(facts: Facts, sending: Sending, now: float) -> list[Link]:
    links: list[Link] = []
    if (out := facts.out) is not None:
        links.append(
            Link(
                Cause.IN_FLIGHT,
                patch_ids=out.patch_ids,
                patches=len(out.patch_ids),
                for_s=round(out.for_s, 3),
            )
        )
        if _is_out(facts):
            return links  # it waits for nothing but the answer
    if facts.older_patches:
        links.append(
            Link(
                Cause.OLDER,
                patch_ids=facts.older,
                patches=facts.older_patches,
                requests=facts.own_requests,
                at_least=facts.own_at_least or None,
            )
        )
    if facts.apart is not None:
        apart = facts.apart
        links.append(Link(Cause.APART, apart.barrier.value, apart.key, (apart.patch_id,)))
    if facts.due_at is not None and facts.due_at > now:
        links.append(
            Link(
                Cause.DEFERRED,
                facts.error,
                failures=facts.failures,
                since=facts.failed_at,
                until=facts.due_at,
            )
        )
    if sending.state != "running":
        # A silence of the API ends no pause of an operator, and frees no disk.
        its_end = sending.by_api or sending.state == "stopped"
        until = sending.closed_until if its_end else None
        links.append(Link(Cause(sending.state), sending.reason, until=until))
    ahead = facts.ahead or Ahead(0, 0)
    if ahead.requests or not links:
        at_least = ahead.at_least or None
        links.append(
            Link(Cause.TURN, patches=ahead.patches, requests=ahead.requests, at_least=at_least)
        )
    return links


def _is_out(facts: Facts) -> bool:
    return facts.out is not None and facts.patch_id in facts.out.patch_ids
