"""When a file in `incoming/` may be taken: decided from what was seen of it."""

import stat
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What the folder's events have told about a file."""

    UNSEEN = "unseen"
    CREATED = "created"
    OPENED = "opened"  # by whoever created it
    CLOSED = "closed"  # by a writer, or moved in
    REOPENED = "reopened"  # after that, by a reader or a writer


class Writer(StrEnum):
    """Whether a process has the file open for writing."""

    SOME = "some"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sight:
    """A file as it was seen."""

    mode: int
    size: int
    links: int
    still_s: float
    """For how long it has been seen unchanged."""
    stage: Stage = Stage.UNSEEN
    writer: Writer = Writer.UNKNOWN


@dataclass(frozen=True, slots=True)
class Take:
    """It is complete; `closed` if its writer is known to have finished."""

    closed: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after `seconds`, or when an event says so."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It will not be read."""

    reason: str


Verdict = Take | Wait | Refuse


def judge(sight: Sight, settle_s: float) -> Verdict:
    """Whether to take a file that is there under its final name."""
    refusal = refusal_of(sight.mode)
    if refusal is not None:
        return Refuse(refusal)
    unsettled_s = settle_s - sight.still_s
    if sight.links > 1:
        # Some programs place a file by link() and unlink(): for a moment it has two names.
        if unsettled_s > 0:
            return Wait(unsettled_s)
        return Refuse(f"has {sight.links} hard links: move or copy it here instead")
    if sight.writer is Writer.SOME:
        return Wait(None)
    if sight.size == 0 and unsettled_s > 0:
        return Wait(unsettled_s)  # created now, to be opened and filled in a moment
    if sight.writer is Writer.NONE or sight.stage is Stage.CLOSED:
        return Take(closed=True)
    if sight.stage is Stage.OPENED:
        return Wait(None)
    return Wait(unsettled_s) if unsettled_s > 0 else Take(closed=False)


def refusal_of(mode: int) -> str | None:
    """Why something of that mode is not read, or None."""
    if stat.S_ISREG(mode):
        return None
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((kind for is_kind, kind in kinds if is_kind(mode)), "a device")
    return f"is {kind}: only regular files are read"


def is_ignored(name: str) -> bool:
    """Whether a name says that its file is not there yet."""
    return name.startswith(".") or name.endswith((".tmp", ".part"))
