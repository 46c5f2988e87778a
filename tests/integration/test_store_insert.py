"""The contract's INSERT from any client: what is taken, refused and skipped."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from syncd.core.patch import MAX_METADATA_BYTES
from syncd.store.schema import open_writer

CONTRACT = """
INSERT INTO outbox (workflow_run_id, name, metadata, idempotency_key, priority)
VALUES ('workflow_run_1234', 'test_workflow', '{"internal_id":"id_1234"}', NULL, 0);
"""
FIVE = (
    "INSERT INTO outbox (workflow_run_id, name, metadata, idempotency_key, priority)"
    " VALUES (?, ?, ?, ?, ?)"
)


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's plain connection; the daemon is not running."""
    path = tmp_path / "outbox.db"
    open_writer(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def count(db: sqlite3.Connection) -> int:
    (n,) = db.execute("SELECT count(*) FROM outbox").fetchone()
    (kept,) = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()
    assert kept == n
    return int(n)


# What a producer may write


def test_the_contracts_insert_is_a_pending_patch(producer: sqlite3.Connection) -> None:
    producer.executescript(CONTRACT)

    row = producer.execute(
        "SELECT id, workflow_run_id, name, metadata, idempotency_key, priority, state, attempts"
        "  FROM outbox"
    ).fetchone()
    assert row == (
        *(1, "workflow_run_1234", "test_workflow", '{"internal_id":"id_1234"}'),
        *(None, 0, "pending", 0),
    )
    assert count(producer) == 1


def test_only_the_run_and_something_to_set_are_required(producer: sqlite3.Connection) -> None:
    producer.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")
    producer.execute("INSERT INTO outbox (workflow_run_id, metadata) VALUES ('r', '{}')")

    assert producer.execute("SELECT priority FROM outbox").fetchall() == [(0,), (0,)]


def test_a_row_is_stamped_with_the_time_of_its_insert(producer: sqlite3.Connection) -> None:
    producer.executescript(CONTRACT)

    (age_s,) = producer.execute(
        "SELECT (julianday('now') - 2440587.5) * 86400.0 - created_at FROM outbox"
    ).fetchone()
    assert 0 <= age_s < 60


@pytest.mark.parametrize(
    "run_id",
    [
        "x",
        "r" * 255,
        "é" * 255,
        "🙂" * 255,
        "a/b?c#d%2e ü",
        "...",
        " ",
        "\u200b",
        "~500",
        "'; DROP TABLE outbox; --",
    ],
)
def test_a_run_id_is_opaque(producer: sqlite3.Connection, run_id: str) -> None:
    producer.execute(FIVE, (run_id, "n", None, None, 0))

    assert producer.execute("SELECT workflow_run_id FROM outbox").fetchone() == (run_id,)


@pytest.mark.parametrize(
    "metadata",
    [
        "{}",
        ' {\n "a" :\t1 }\r\n',
        '{"n":12345678901234567890123,"f":1.0e5,"z":-0,"t":1.50}',
        '{"null":null,"deep":[[[{"a":[]}]]]}',
        '{"é":"🙂","esc":"\\u00e9\\u0000"}',
        '{"a":"' + "x" * (MAX_METADATA_BYTES - 8) + '"}',
        '{"a":1,"a":2}',
    ],
)
def test_metadata_is_kept_to_the_letter(producer: sqlite3.Connection, metadata: str) -> None:
    producer.execute(FIVE, ("r", None, metadata, None, 0))

    assert producer.execute("SELECT metadata FROM outbox").fetchone() == (metadata,)


@pytest.mark.parametrize("letter", ["x", "é", "\u20ac", "\U0001f600"])
def test_a_name_is_taken_up_to_its_bound(producer: sqlite3.Connection, letter: str) -> None:
    longest = letter * (10_240 // len(letter.encode()))
    producer.execute(FIVE, ("r", longest, None, None, 0))

    with pytest.raises(sqlite3.IntegrityError, match="name must be at most 10240 bytes"):
        producer.execute(FIVE, ("r", longest + letter, None, None, 0))
    assert producer.execute("SELECT name FROM outbox").fetchall() == [(longest,)]


@pytest.mark.parametrize("priority", [-(1 << 63), -1, 0, (1 << 63) - 1])
def test_every_priority_of_64_bits_is_taken(producer: sqlite3.Connection, priority: int) -> None:
    producer.execute(FIVE, ("r", "n", None, None, priority))

    assert producer.execute("SELECT priority FROM outbox").fetchone() == (priority,)


# What is refused, and in which words

LONG = '{"a":"' + "é" * ((MAX_METADATA_BYTES - 8) // 2) + 'x"}'  # one byte too many
REFUSED = [
    (("", "n", None, None, 0), "workflow_run_id must be 1 to 255 characters"),
    (("r" * 256, "n", None, None, 0), "workflow_run_id must be 1 to 255 characters"),
    ((None, "n", None, None, 0), "workflow_run_id is missing"),
    ((b"r", "n", None, None, 0), "cannot store BLOB value in TEXT column outbox.workflow_run_id"),
    (("a\nb", "n", None, None, 0), "workflow_run_id must not contain control characters"),
    (("a\x00b", "n", None, None, 0), "workflow_run_id must not contain control characters"),
    (("\x7f", "n", None, None, 0), "workflow_run_id must not contain control characters"),
    (("a\x85", "n", None, None, 0), "workflow_run_id must not contain control characters"),
    ((".", "n", None, None, 0), "workflow_run_id must not be . or .."),
    (("..", "n", None, None, 0), "workflow_run_id must not be . or .."),
    (("r", None, None, None, 0), "a patch needs a name or metadata"),
    (("r", "a\x00b", None, None, 0), "name must not contain NUL"),
    (("r", "x" * 10_241, None, None, 0), "name must be at most 10240 bytes"),
    (("r", b"n", None, None, 0), "cannot store BLOB value in TEXT column outbox.name"),
    (("r", None, "", None, 0), "metadata must be a JSON object"),
    (("r", None, "null", None, 0), "metadata must be a JSON object"),
    (("r", None, "[1]", None, 0), "metadata must be a JSON object"),
    (("r", None, "{a:1}", None, 0), "metadata must be a JSON object"),
    (("r", None, '{"a":1', None, 0), "metadata must be a JSON object"),
    (("r", None, "{'a':1}", None, 0), "metadata must be a JSON object"),
    (("r", None, '{"a":NaN}', None, 0), "metadata must be a JSON object"),
    (("r", None, '{"a":1,}', None, 0), "metadata must be a JSON object"),
    (("r", None, '{"a":1}\x00', None, 0), "metadata must be a JSON object"),
    (("r", None, '{"a":"\n"}', None, 0), "metadata must be a JSON object"),
    (("r", None, b"{}", None, 0), "cannot store BLOB value in TEXT column outbox.metadata"),
    (("r", None, LONG, None, 0), "metadata must be at most 10240 bytes"),
    (("r", "n", None, "", 0), "idempotency_key must be 1 to 255 characters"),
    (("r", "n", None, "k" * 256, 0), "idempotency_key must be 1 to 255 characters"),
    (("r", "n", None, "k\x00", 0), "idempotency_key must be 1 to 255 characters"),
    (("r", "n", None, None, None), "priority must be an integer: leave the column out for 0"),
    (("r", "n", None, None, 1.5), "cannot store REAL value in INTEGER column outbox.priority"),
    (("r", "n", None, None, "x"), "cannot store TEXT value in INTEGER column outbox.priority"),
]


@pytest.mark.parametrize("created_at", [-1, 1e20, float("inf")])
def test_a_time_that_no_calendar_has_is_refused(
    producer: sqlite3.Connection, created_at: float
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="leave created_at out"):
        producer.execute(
            "INSERT INTO outbox (workflow_run_id, name, created_at) VALUES ('r', 'n', ?)",
            (created_at,),
        )


@pytest.mark.parametrize(("row", "sentence"), REFUSED)
def test_the_table_itself_refuses_what_is_not_a_patch_and_says_why(
    producer: sqlite3.Connection, row: tuple[object, ...], sentence: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError) as refused:
        producer.execute(FIVE, row)

    assert str(refused.value).removeprefix("CHECK constraint failed: ") == sentence
    assert count(producer) == 0


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("clause", ["INSERT OR ABORT", "INSERT OR REPLACE", "INSERT OR FAIL"])
def test_no_conflict_clause_gets_a_bad_row_in(
    producer: sqlite3.Connection, clause: str, recursive: str
) -> None:
    producer.execute(f"PRAGMA recursive_triggers = {recursive}")

    with pytest.raises(sqlite3.IntegrityError, match="metadata must be a JSON object"):
        producer.execute(FIVE.replace("INSERT", clause, 1), ("r", None, "[]", None, 0))

    assert count(producer) == 0


def test_a_producer_that_asks_to_ignore_what_is_refused_gets_what_it_asked_for(
    producer: sqlite3.Connection,
) -> None:
    sql = FIVE.replace("INSERT", "INSERT OR IGNORE", 1)

    ignored = producer.execute(sql, ("r", None, "[]", None, 0)).rowcount

    assert ignored == 0
    assert count(producer) == 0


@pytest.mark.parametrize("clause", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("id", 5), ("id", 1), ("id", 0), ("id", -1), ("id", -5)),
        *(("state", "held"), ("state", "delivered"), ("attempts", 1), ("reason", "x")),
        *(("last_error", "{}"), ("leaves_out", "[]"), ("previous_id", 1), ("settled_at", 1.0)),
    ],
)
def test_what_is_syncds_own_is_not_given_by_a_producer(
    producer: sqlite3.Connection, clause: str, column: str, value: object
) -> None:
    producer.executescript(CONTRACT)
    before = producer.execute("SELECT * FROM outbox").fetchall()

    with suppress(sqlite3.IntegrityError):  # OR IGNORE swallows the CHECKs among the reasons
        producer.execute(
            f"{clause} INTO outbox (workflow_run_id, name, {column}) VALUES ('r', 'n', ?)", (value,)
        )

    assert producer.execute("SELECT * FROM outbox").fetchall() == before
    assert count(producer) == 1


def test_what_a_patch_says_is_never_changed(producer: sqlite3.Connection) -> None:
    producer.executescript(CONTRACT)

    for column in ("workflow_run_id", "name", "metadata", "idempotency_key", "priority", "id"):
        for clause in ("UPDATE", "UPDATE OR REPLACE"):
            with pytest.raises(sqlite3.IntegrityError, match="insert a newer one"):
                producer.execute(f"{clause} outbox SET {column} = 7")


def test_a_pending_patch_is_not_deleted(producer: sqlite3.Connection) -> None:
    producer.executescript(CONTRACT)

    with pytest.raises(sqlite3.IntegrityError, match="use syncd discard"):
        producer.execute("DELETE FROM outbox")

    assert count(producer) == 1


# The same key twice


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize(
    "sql",
    [
        FIVE,
        FIVE.replace("INSERT", "INSERT OR REPLACE", 1),
        FIVE.replace("INSERT", "INSERT OR IGNORE", 1),
        FIVE.replace("INSERT", "INSERT OR ROLLBACK", 1),
        FIVE + " ON CONFLICT DO NOTHING",
        FIVE + " ON CONFLICT DO UPDATE SET state = 'held'",
        FIVE.replace("INSERT", "REPLACE", 1),
    ],
)
def test_a_second_patch_with_the_same_key_is_skipped_in_silence(
    producer: sqlite3.Connection, sql: str, recursive: str
) -> None:
    producer.execute(f"PRAGMA recursive_triggers = {recursive}")
    producer.execute(FIVE, ("r", "first", None, "k", 0))

    producer.execute(sql, ("other", "second", None, "k", 9))

    assert producer.execute("SELECT id, name, state FROM outbox").fetchall() == [
        (1, "first", "pending")
    ]
    assert count(producer) == 1


def test_a_skipped_patch_does_not_stop_its_transaction(producer: sqlite3.Connection) -> None:
    patches = [("r", str(n), None, key, 0) for n, key in enumerate(["a", "b", "a", None, None])]

    with producer:
        producer.executemany(FIVE, patches)

    assert [name for (name,) in producer.execute("SELECT name FROM outbox")] == list("0134")


def test_a_key_is_known_as_long_as_its_patch_whatever_became_of_it(
    producer: sqlite3.Connection,
) -> None:
    producer.execute(FIVE, ("r", "n", None, "k", 0))
    producer.execute("UPDATE outbox SET state = 'discarded', settled_at = 1")

    producer.execute(FIVE, ("r", "n", None, "k", 0))

    assert producer.execute("SELECT count(*) FROM outbox").fetchone() == (1,)
