"""Getting patches in: the contract's INSERT from any client, and intake's own transactions."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import NOON, Wall, insert, opened, rows, states

from syncd.core.patch import MAX_METADATA_BYTES, Patch
from syncd.store import Accepted, Place, Store, StoreUnavailable
from syncd.store.accept import ABANDONED_S, CUT_OFF, MANY, accept
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


# Intake's own way in


async def test_patches_are_accepted_in_the_order_given(store: Store) -> None:
    accepted = await store.accept(
        [Patch("b", "1"), Patch("a", None, '{"n":1}', "key", 5), Patch("b", "3")]
    )

    assert (accepted.accepted, accepted.duplicates) == (3, 0)
    assert (accepted.first_id, accepted.last_id) == (1, 3)
    assert rows(
        store.path,
        "SELECT id, workflow_run_id, name, metadata, idempotency_key, priority, created_at"
        "  FROM outbox ORDER BY id",
    ) == [
        (1, "b", "1", None, None, 0, NOON),
        (2, "a", None, '{"n":1}', "key", 5, NOON),
        (3, "b", "3", None, None, 0, NOON),
    ]


@given(count=st.integers(0, 2300), known=st.sets(st.integers(0, 2299), max_size=20))
@settings(max_examples=10)
def test_however_many_come_at_once_each_is_a_row_and_counted(count: int, known: set[int]) -> None:
    patches = [Patch(f"r{n % 7}", f"{n}", idempotency_key=f"k{n}") for n in range(count)]
    before = [patches[n] for n in sorted(known) if n < count]

    async def accepted() -> tuple[Accepted, list[tuple[object, ...]], list[tuple[object, ...]]]:
        with TemporaryDirectory() as folder:
            async with opened(Path(folder) / "syncd.db") as store:
                await store.accept(before)
                done = await store.accept(patches)
                names = rows(store.path, "SELECT id, name FROM outbox ORDER BY id")
                return done, names, rows(store.path, "SELECT state, n FROM counters WHERE n > 0")

    done, names, counted = asyncio.run(accepted())

    old = [patch.name for patch in before]
    new = [patch.name for patch in patches if patch not in before]
    assert (done.accepted, done.duplicates) == (len(new), len(old))
    assert names == list(enumerate(old + new, start=1))
    assert counted == ([("pending", count)] if count else [])


async def test_the_table_goes_on_refusing_after_many_have_come_at_once(store: Store) -> None:
    many = [Patch("r", f"{n}", idempotency_key=f"{n}") for n in range(MANY)]
    await store.accept(many)

    def spoil(db: sqlite3.Connection) -> None:
        accept(db, [*many, Patch("r", "1", priority=None)], None, NOON)  # type: ignore[arg-type]

    with pytest.raises(sqlite3.IntegrityError, match="priority must be an integer"):
        await store._writer.atomic(spoil)
    with pytest.raises(sqlite3.IntegrityError, match=r"must not be \. or \.\."):
        await store.accept([Patch("..", "1")])
    with pytest.raises(sqlite3.IntegrityError, match="a patch needs a name or metadata"):
        insert(store.path, ("r", None, None))


async def test_known_keys_are_counted_as_duplicates(store: Store) -> None:
    await store.accept([Patch("r", "1", idempotency_key="a")])

    accepted = await store.accept(
        [Patch("r", str(n), idempotency_key=key) for n, key in enumerate(["a", "b", "b", None])]
    )

    assert (accepted.accepted, accepted.duplicates) == (2, 2)
    assert (accepted.first_id, accepted.last_id) == (2, 3)


async def test_nothing_but_duplicates_is_no_error(store: Store) -> None:
    await store.accept([Patch("r", "1", idempotency_key="a")])

    accepted = await store.accept([Patch("r", "2", idempotency_key="a")])

    assert (accepted.accepted, accepted.duplicates) == (0, 1)
    assert (accepted.first_id, accepted.last_id) == (None, None)


async def test_accepting_nothing_is_nothing(store: Store) -> None:
    assert (await store.accept([])).accepted == 0


async def test_a_chunk_is_taken_whole_or_not_at_all_and_its_place_with_it(store: Store) -> None:
    place = await store.open_batch("f.jsonl", "spool")
    bad = [Patch("r", "1"), Patch("..", "2")]

    with pytest.raises(sqlite3.IntegrityError, match=r"must not be \. or \.\."):
        await store.accept(bad, Place(place.batch_id, offset=10, line=2))

    assert states(store.path) == {}
    assert await store.open_batch("f.jsonl", "spool") == place


async def test_the_place_in_a_file_is_recorded_with_its_patches(store: Store) -> None:
    batch = (await store.open_batch("f.jsonl", "spool")).batch_id
    first = Place(batch, offset=100, line=2, rejected=1, rejects_bytes=40)
    second = Place(batch, offset=180, line=4, rejected=2, rejects_bytes=75, taken=True)

    await store.accept([Patch("r", "1", idempotency_key="k")], first)
    assert await store.open_batch("f.jsonl", "spool") == first
    await store.accept([Patch("r", "1", idempotency_key="k"), Patch("s", "2")], second)

    assert await store.open_batch("f.jsonl", "spool") == second
    assert rows(
        store.path,
        "SELECT accepted, duplicates, rejected, first_id, last_id, taken_at FROM batches",
    ) == [(2, 1, 2, 1, 2, NOON)]
    assert rows(store.path, "SELECT batch_id FROM outbox") == [(batch,), (batch,)]


async def test_a_place_is_recorded_even_if_nothing_of_the_chunk_was_a_patch(store: Store) -> None:
    batch = (await store.open_batch("f.jsonl", "spool")).batch_id

    await store.accept([], Place(batch, offset=50, line=1, rejected=1))

    assert (await store.open_batch("f.jsonl", "spool")).offset == 50


async def test_after_it_has_left_the_spool_a_file_of_the_same_name_is_another(
    store: Store,
) -> None:
    first = await store.open_batch("f.jsonl", "spool")
    other_source = await store.open_batch("f.jsonl", "enqueue")
    await store.close_batch(first.batch_id)

    second = await store.open_batch("f.jsonl", "spool")

    assert len({first.batch_id, other_source.batch_id, second.batch_id}) == 3
    assert second == Place(second.batch_id)


async def test_every_command_that_hands_in_a_file_has_a_batch_of_its_own(store: Store) -> None:
    first = await store.open_batch("stdin", "enqueue")
    await store.accept([Patch("r", "1")], first)

    second = await store.open_batch("stdin", "enqueue")

    assert second == Place(second.batch_id)
    assert second.batch_id != first.batch_id


async def test_a_batch_to_which_nothing_comes_any_more_is_cut_off(store: Store, wall: Wall) -> None:
    """Unless its command is known to be there, or it is a file of the spool, or closed already."""
    grows, still, nothing, whole, attended = [
        (await store.open_batch("stdin", "enqueue")).batch_id for _ in range(5)
    ]
    spool = (await store.open_batch("stdin", "spool")).batch_id
    await store.close_batch(whole, 0)
    for batch in (still, grows):
        wall.now += ABANDONED_S
        await store.accept([Patch("r", "1")], Place(batch))

    wall.now += 1.0
    await store.close_abandoned([attended])

    assert rows(store.path, "SELECT id, closed_at, refused FROM batches ORDER BY id") == [
        (grows, None, None),
        (still, wall.now, CUT_OFF),
        (nothing, wall.now, CUT_OFF),
        (whole, NOON, None),
        (attended, None, None),
        (spool, None, None),
    ]


async def test_a_batch_that_was_but_slow_is_whole_in_the_end(store: Store, wall: Wall) -> None:
    batch = (await store.open_batch("stdin", "enqueue")).batch_id
    wall.now += ABANDONED_S + 1.0
    await store.close_abandoned([])
    assert rows(store.path, "SELECT refused FROM batches") == [(CUT_OFF,)]

    await store.accept([Patch("r", "1")], Place(batch))
    await store.close_batch(batch, 0)

    assert rows(store.path, "SELECT accepted, refused FROM batches") == [(1, None)]


async def test_accepted_means_synced_to_the_disk(store: Store) -> None:
    settings = await store._writer.run(
        lambda db: [
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
        ]
    )

    assert settings == [2, "wal"]  # 2 is FULL


async def test_numbers_arrive_in_the_outbox_as_they_were_written(store: Store) -> None:
    text = '{"n":12345678901234567890123,"f":1.0e5,"z":-0.0}'

    await store.accept([Patch("r", None, text)])

    ((kept,),) = rows(store.path, "SELECT metadata FROM outbox")
    assert kept == text
    assert json.loads(kept)


async def test_a_database_that_cannot_be_seen_is_not_taken_for_moved(tmp_path: Path) -> None:
    """What is wrong is told as it is; nothing is taken in, and it goes on when it can be seen."""
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")
    async with opened(tmp_path / "way" / "syncd.db") as store:
        (tmp_path / "way").unlink()
        (tmp_path / "way").symlink_to("way")
        with pytest.raises(StoreUnavailable, match="Too many levels of symbolic links") as refused:
            await store.accept([Patch("r", "n")])
        (tmp_path / "way").unlink()
        (tmp_path / "way").symlink_to("real")
        accepted = await store.accept([Patch("r", "n")])

    assert "moved" not in str(refused.value)
    assert accepted.accepted == 1
