"""What readers ask for, however much it is: found first, as ids, then read a part at a time.

Between two parts nothing is held, neither a statement nor a view of the database: whoever reads
slowly keeps nobody from writing, and the log from nothing.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

PART_ROWS = 200
PART_BYTES = 256 << 10

Given = Mapping[str, object]


def find(
    db: sqlite3.Connection, queries: Iterable[str], given: Given, limit: int | None = None
) -> None:
    """Note the ids that the queries give, one after the other, up to the limit.

    They go into a temporary table, which SQLite keeps on disk when it is long. A connection has one
    of them: the next search takes its place.
    """
    db.execute("DROP TABLE IF EXISTS temp.found")
    db.execute("CREATE TEMP TABLE found (place INTEGER PRIMARY KEY, id INTEGER NOT NULL)")
    db.execute("BEGIN")  # one view for all of them: nobody is found twice
    try:
        left = -1 if limit is None else limit
        for query in queries:
            found = db.execute(
                f"INSERT INTO temp.found (id) {query} LIMIT :left", {**given, "left": left}
            )
            left -= found.rowcount if left > 0 else 0
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def rows(db: sqlite3.Connection, sql: str, given: Given) -> Iterator[tuple[Any, ...]]:
    """The rows of what was found, in that order, as they are by now.

    `sql` reads from temp.found as f, with f.place as its first column, and ends in a WHERE.
    """
    after = 0
    while part := _part(db, f"{sql} AND f.place > :after ORDER BY f.place", given, after):
        after = part[-1][0]
        yield from part


def _part(db: sqlite3.Connection, sql: str, given: Given, after: int) -> list[tuple[Any, ...]]:
    part: list[tuple[Any, ...]] = []
    size = 0
    with closing(db.execute(sql, {**given, "after": after})) as found:
        for row in found:
            part.append(row)
            size += sum(len(value) for value in row if isinstance(value, str))
            if len(part) == PART_ROWS or size >= PART_BYTES:
                break
    return part


def part_of(lines: Iterator[bytes]) -> bytes:
    """The next of the lines, as many as make a part; empty at the end."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line + b"\n")
        size += len(line)
        if len(part) == PART_ROWS or size >= PART_BYTES:
            break
    return b"".join(part)
