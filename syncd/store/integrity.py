"""Whether the database is what it should be: its pages, and the counters that nobody recounts."""

import sqlite3
from collections.abc import Iterator

from syncd.store.errors import recovery

SHOWN = 20  # what quick_check finds, at most


def flaws(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, one sentence each; a reader's connection is enough.

    Reads the whole file, in one transaction, so that a writer at work makes no difference.
    """
    db.execute("BEGIN")
    try:
        yield from _damage(db)
        yield from _miscounts(db)
    finally:
        db.execute("ROLLBACK")


def damage(db: sqlite3.Connection, most: int) -> list[str]:
    """What SQLite finds wrong with the file, which it reads whole."""
    found = (text for (text,) in db.execute(f"PRAGMA quick_check({most:d})"))
    return [" ".join(text.split()) for text in found if text != "ok"]


def _damage(db: sqlite3.Connection) -> Iterator[str]:
    found = damage(db, SHOWN)
    yield from (f"damaged: {text}" for text in found)
    if found:
        path = db.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        yield recovery(path)


def _miscounts(db: sqlite3.Connection) -> Iterator[str]:
    kept: dict[str, int] = dict(db.execute("SELECT state, n FROM counters"))
    counted: dict[str, int] = dict(
        db.execute(
            "SELECT state, count(*) FROM outbox GROUP BY state"
            " UNION ALL SELECT 'snapshots', count(*) FROM snapshots"
        )
    )
    for state, n in kept.items():
        if (real := counted.get(state, 0)) != n:
            yield f"the counter of {state} says {n}, there are {real}"
