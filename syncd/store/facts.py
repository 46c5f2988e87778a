"""Small facts that outlive the daemon: a name and a text each."""

import sqlite3

PAUSED = "paused"  # by an operator
LAST_ERROR = "last_error"  # JSON: what went wrong last, and when
CLOSED_UNTIL = "closed_until"  # by Retry-After, as seconds since the epoch
CLOSED_AT = "closed_at"  # when that was asked for
RUNNING = "running"  # a daemon has started and not stopped in order
STOPPED = "stopped"  # when the last daemon had nothing in flight any more, on two clocks
UNCLEAN = "unclean"  # JSON {"until", "upto_id"}: what was in flight at an unclean stop
TRIED = "tried"  # when it was last tried whether anything can be written again
BOOTED = "booted"  # JSON {"boot", "at"}: the boot of the last daemon, and when it began


def fact(db: sqlite3.Connection, name: str) -> str | None:
    """What is remembered by that name, if anything."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_fact(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """Remember it; None forgets it."""
    if value is None:
        db.execute("DELETE FROM facts WHERE name = ?", (name,))
    else:
        db.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))
