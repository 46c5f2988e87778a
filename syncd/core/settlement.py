"""What is to be written down about an answer: from what it means to what the outbox will say."""

from dataclasses import dataclass
from typing import assert_never

import msgspec

from syncd.core import backoff
from syncd.core.answer import Run
from syncd.core.fold import Fold
from syncd.core.outcome import Blame, Confirmed, LockedOut, Outcome, Refused, Trouble, Unavailable
from syncd.core.schedule import Lane


class Delivered(msgspec.Struct, frozen=True):
    """The patches are on the run, and this is the run."""

    run: Run
    patch_ids: tuple[int, ...]
    troubled: bool
    """The lane had a row of trouble, which ends here."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The lane waits until `due_at` (seconds since the epoch); its patches stay pending."""

    run_id: str
    due_at: float
    failures: int
    ids: tuple[int, ...]
    """The patches that the failed request carried."""
    trouble: Trouble
    suspect_until: float | None = None
    """The request may be applied, late, until this instant."""
    closed_until: float | None = None
    """The server has asked for silence until this instant, which a restart must not break."""
    decided_at: float | None = None
    """When the instants above were decided on. They move along with the wall clock if that is
    stepped before they are written."""


@dataclass(frozen=True, slots=True)
class Dead:
    """These patches are parked with the answer that refused them."""

    run_id: str
    patch_ids: tuple[int, ...]
    trouble: Trouble
    troubled: bool


@dataclass(frozen=True, slots=True)
class RunDead:
    """Everything that waits for this run is parked: the vendor does not know the run."""

    run_id: str
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Noted:
    """Trouble that changes no patch: the credentials are refused."""

    trouble: Trouble


Settlement = Delivered | Deferred | Dead | RunDead | Noted


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failures that may pass are borne. Seconds."""

    base_s: float
    cap_s: float
    max_age_s: float
    """A patch older than this is given up at its next such failure; 0: never."""
    suspect_s: float = 60.0
    """A request that failed, but may have arrived, may be applied for so long."""


def settlements(
    lane: Lane, request: Fold, outcome: Outcome, patience: Patience, *, now: float, draw: float
) -> list[Settlement]:
    """What to write down about the answer to a lane's request.

    Empty for a refused fold: nobody knows yet which of its patches is guilty.
    """
    match outcome:
        case Confirmed(run):
            return [Delivered(run, request.ids, lane.troubled)]
        case Refused(trouble) if trouble.blame is Blame.RUN:
            return [RunDead(lane.run, trouble)]
        case Refused(trouble):
            if len(request.ids) > 1:
                return []
            return [Dead(lane.run, request.ids, trouble, lane.troubled)]
        case LockedOut(trouble):
            return [Noted(trouble)]
        case Unavailable(trouble, retry_after_s, ambiguous=ambiguous):
            failures = lane.failures + 1
            wait = backoff.delay(failures, draw, base_s=patience.base_s, cap_s=patience.cap_s)
            due_at = now + max(wait, retry_after_s or 0.0)
            suspect_until = now + patience.suspect_s if ambiguous else None
            closed_until = None if retry_after_s is None else now + retry_after_s
            deferred = Deferred(
                lane.run, due_at, failures, request.ids, trouble, suspect_until, closed_until, now
            )
            return [*_expired(lane, request, trouble, now - patience.max_age_s, patience), deferred]
        case _:
            assert_never(outcome)


def _expired(
    lane: Lane, request: Fold, trouble: Trouble, oldest: float, patience: Patience
) -> list[Settlement]:
    if not patience.max_age_s:
        return []
    sent = frozenset(request.ids)
    old = tuple(p.id for p in lane.waiting if p.id in sent and p.created_at < oldest)
    reason = Trouble(Blame.SERVER, "expired", f"older than max_age_s; last: {trouble.message}")
    return [Dead(lane.run, old, reason, troubled=False)] if old else []
