"""What an answer means: the one place that turns a reply into a decision.

Whom a failure speaks for decides what happens. The patch: it is parked, alone. The run: what
waits for that run is parked. The credentials: all sending stops, nothing is lost. The server:
later again.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from syncd.core import retry_after
from syncd.core.answer import NoReply, Reply, Run, VendorError, error_in, run_in


class Blame(StrEnum):
    """Whom a failure speaks for."""

    PATCH = "patch"
    RUN = "run"
    CREDENTIALS = "credentials"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure as it is kept with the patch and shown to people."""

    blame: Blame
    code: str
    """The vendor's code where it gave one, else `http_503`, `timeout` and the like."""
    message: str
    status: int | None = None
    request_id: str | None = None


class Confirmed(msgspec.Struct, frozen=True):
    """A 2xx whose body is the WorkflowRun that was asked for."""

    run: Run


@dataclass(frozen=True, slots=True)
class Refused:
    """The patch or the run is at fault: asking again would bring the same answer."""

    trouble: Trouble


@dataclass(frozen=True, slots=True)
class LockedOut:
    """Our credentials or our account are at fault: nothing may be sent until that changes."""

    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The server, or the way to it, is at fault: the same request may pass later."""

    trouble: Trouble
    retry_after_s: float | None = None
    """What the server asked for; everything waits that long."""
    throttled: bool = False
    """The server says that we were too fast."""
    overloaded: bool = False
    """A sign that fewer requests at once would help."""
    ambiguous: bool = False
    """The request may have been applied."""
    disregarded: str | None = None
    """What it said about when, and is not obeyed."""


Outcome = Confirmed | Refused | LockedOut | Unavailable

# The statuses whose meaning does not depend on the patch. Whatever is not named here: 2xx is a
# confirmation if the body is; other 4xx blame the patch; everything else blames the server.
_RUN_STATUSES = frozenset({404, 410})
_CREDENTIALS_STATUSES = frozenset({401, 402, 403})
_LATER_STATUSES = frozenset({408, 409, 421, 425, 429})
_OVERLOAD_STATUSES = frozenset({429, 503, 504})

# The vendor's documented codes (error-codes page, 2026-02-09) that say more than their status does
# below 500.
_REMOVED = "ENDPOINT_REMOVED"
_BLAME_BY_CODE = {
    "UNAUTHORIZED": Blame.CREDENTIALS,
    "USAGE_BLOCKED": Blame.CREDENTIALS,
    _REMOVED: Blame.CREDENTIALS,  # a wrong api.version: nobody's patch is at fault
    "NOT_FOUND": Blame.RUN,
    "RATE_LIMIT_EXCEEDED": Blame.SERVER,
    "INTERNAL_ERROR": Blame.SERVER,
}


def classify(answer: Reply | NoReply, run_id: str, now: float) -> Outcome:
    """The meaning of an answer to a request for `run_id`. Total: every answer has one.

    `now` is the wall clock in seconds since the epoch, for a Retry-After that is a date.
    """
    if isinstance(answer, NoReply):
        trouble = Trouble(Blame.SERVER, answer.cause, answer.message)
        overloaded = answer.cause == "timeout"
        return Unavailable(trouble, overloaded=overloaded, ambiguous=answer.ambiguous)
    if 200 <= answer.status < 300:
        return _confirmation(answer, run_id)
    return _failure(answer, now)


def _confirmation(answer: Reply, run_id: str) -> Outcome:
    run = run_in(answer.body)
    if run is not None and run.id == run_id:
        return Confirmed(run)
    if run is not None:
        code, message = "wrong_run", "the answer is another WorkflowRun than the one asked for"
    else:
        error = error_in(answer.body)
        code = error.code or "not_a_run"
        message = f"the answer is not a WorkflowRun: {error.message or 'it says nothing'}"
    trouble = Trouble(Blame.SERVER, code, message, answer.status, answer.request_id)
    return Unavailable(trouble, ambiguous=True)


def _failure(answer: Reply, now: float) -> Outcome:
    error = error_in(answer.body)
    blame = _blame(answer.status, error)
    trouble = Trouble(
        blame,
        error.code or f"http_{answer.status}",
        error.message or f"HTTP {answer.status} without a message",
        answer.status,
        error.request_id or answer.request_id,
    )
    match blame:
        case Blame.CREDENTIALS:
            return LockedOut(trouble)
        case Blame.PATCH | Blame.RUN:
            return Refused(trouble)
        case Blame.SERVER:
            asked = retry_after.asked_for(
                answer.retry_after, retry_after.instant(answer.date) or now
            )
            throttled = answer.status == 429 or error.code == "RATE_LIMIT_EXCEEDED"
            return Unavailable(
                trouble,
                retry_after_s=asked.seconds,
                throttled=throttled,
                overloaded=throttled or answer.status in _OVERLOAD_STATUSES,
                ambiguous=answer.status >= 500 or answer.status == 408,
                disregarded=asked.disregarded,
            )


def _blame(status: int, error: VendorError) -> Blame:
    if status in _CREDENTIALS_STATUSES:
        # A 403 that may pass later is not about our credentials.
        return Blame.SERVER if error.retryable else Blame.CREDENTIALS
    if status == 429:
        return Blame.SERVER  # whatever the body says: too fast is never a patch's fault
    by_code = _BLAME_BY_CODE.get(error.code or "")
    if error.retryable is not None:
        # The documented advice: `retryable` decides. It outranks the status.
        if error.retryable:
            return Blame.SERVER
        return by_code if by_code not in (None, Blame.SERVER) else _refusal(status)
    if status >= 500:
        return Blame.SERVER  # who has failed is not believed about what others have done wrong
    if by_code is not None:
        return by_code
    if status < 400 or status in _LATER_STATUSES:
        return Blame.SERVER
    return _refusal(status)


def lockout(code: str | None) -> str:
    """Why nothing is sent, and what to do, after a LockedOut with this code."""
    if code == _REMOVED:
        return "the API no longer has this version or endpoint: set api.version, then restart"
    return "the API does not accept the credentials: see the last error"


def _refusal(status: int) -> Blame:
    return Blame.RUN if status in _RUN_STATUSES else Blame.PATCH
