"""Intake's own way into the outbox: chunks, places in a file, batches."""

import asyncio
import json
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import NOON, Wall, insert, opened, rows, states

from syncd.core.patch import Patch
from syncd.store import Accepted, Place, Store, StoreUnavailable
from syncd.store.accept import ABANDONED_S, CUT_OFF, MANY, accept


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
