"""Instants on disk, when the wall clock that they were taken from is stepped.

What is to happen a minute from now shall happen a minute from now, wherever the clock is put.
Within one boot of the machine a step shows in when the boot began, as the clock has it.
"""

import json
import sqlite3

from syncd.store.facts import BOOTED, CLOSED_AT, CLOSED_UNTIL, UNCLEAN, fact, set_fact

STEP_S = 1.0  # less is the clock being slewed


def begin(db: sqlite3.Connection, now: float, boot: str | None, booted_at: float) -> None:
    """A daemon starts; the clock may have been stepped while none ran."""
    known = json.loads(fact(db, BOOTED) or "{}")
    if boot is not None and known.get("boot") == boot:
        if abs(booted_at - known["at"]) >= STEP_S:
            move(db, booted_at, now)
    else:
        set_fact(db, BOOTED, json.dumps({"boot": boot, "at": booted_at}))
        _limit(db, now)


def move(db: sqlite3.Connection, booted_at: float, now: float) -> None:
    """The clock is stepped, within this boot, and now says `now`.

    Doing it again moves only what was written by the old clock since: a commit that seemed to fail
    may have been made.
    """
    known = json.loads(fact(db, BOOTED) or "{}")
    step_s = booted_at - known["at"]
    set_fact(db, BOOTED, json.dumps(known | {"at": booted_at}))
    db.execute("UPDATE lanes SET due_at = due_at + ?1, failed_at = failed_at + ?1", (step_s,))
    db.execute("UPDATE suspects SET due_at = due_at + ?", (step_s,))
    _move_silence(db, step_s)
    if (text := fact(db, UNCLEAN)) is not None:
        unclean = json.loads(text)
        unclean["until"] += step_s
        set_fact(db, UNCLEAN, json.dumps(unclean))
    _limit(db, now)


def _limit(db: sqlite3.Connection, now: float) -> None:
    """Nothing has happened in the future: that was written by a clock that has been put back."""
    db.execute("UPDATE lanes SET due_at = ?1 WHERE failed_at > ?1", (now,))
    if (closed_at := float(fact(db, CLOSED_AT) or 0.0)) > now:
        _move_silence(db, now - closed_at)


def _move_silence(db: sqlite3.Connection, step_s: float) -> None:
    for name in (CLOSED_UNTIL, CLOSED_AT):
        if (instant := fact(db, name)) is not None:
            set_fact(db, name, str(float(instant) + step_s))
