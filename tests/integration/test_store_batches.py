"""Batches: what became of the patches of each, newest first."""

from stores import (
    Wall,
    dead,
    delivered,
    part,
)

from syncd.core.patch import Patch
from syncd.store import Place, Selection, Store, read


async def test_a_batch_tells_what_became_of_its_patches(store: Store) -> None:
    batch = (await store.open_batch("f.jsonl", "spool")).batch_id
    patches = [Patch(f"r{n}", "n", idempotency_key=f"k{n // 2}") for n in range(10)]
    await store.accept(patches, Place(batch, rejected=3, taken=True))
    await store.close_batch(batch)
    await store.settle([delivered("r0", 1), dead("r2", 2)])
    await store.operate("discard", Selection(ids=(3,)), in_flight=())
    await store.operate("retry", Selection(ids=(2,)), in_flight=())

    (row,) = await store.read(lambda db: list(read.batches(db)))

    expected = {
        "id": batch,
        "name": "f.jsonl",
        "source": "spool",
        "accepted": 5,
        "duplicates": 5,
        "rejected": 3,
        "waiting": 3,
        "delivered": 1,
        "dead": 0,
        "discarded": 1,
        "created_at": "2026-02-09T12:00:00.000Z",
        "taken_at": "2026-02-09T12:00:00.000Z",
        "closed_at": "2026-02-09T12:00:00.000Z",
    }
    assert part(row, expected) == expected


async def test_a_batch_without_its_command_tells_its_last_sign_of_life(
    store: Store, wall: Wall
) -> None:
    """Only where a daemon runs, which knows which commands are there; and until it is closed."""
    opened = [await store.open_batch("f", "enqueue") for _ in range(4)]
    *_, attended, closed = [place.batch_id for place in opened]
    await store.open_batch("f", "spool")
    await store.close_batch(closed)
    wall.now += 30.0
    await store.accept([Patch("r", "n")], opened[0])

    found = await store.read(lambda db: list(read.batches(db, attended=[attended])))
    unknown = await store.read(lambda db: list(read.batches(db)))

    begun, grown = "2026-02-09T12:00:00.000Z", "2026-02-09T12:00:30.000Z"
    assert [row["unattended_since"] for row in found] == [None, None, None, begun, grown]
    assert {row["unattended_since"] for row in unknown} == {None}


async def test_batches_come_newest_first(store: Store) -> None:
    for n in range(3):
        await store.open_batch(f"{n}.csv", "enqueue")

    rows = await store.read(lambda db: list(read.batches(db, limit=2)))

    assert [row["name"] for row in rows] == ["2.csv", "1.csv"]


async def test_batches_are_found_by_their_name_however_old(store: Store) -> None:
    for n in range(60):
        await store.open_batch(f"{n}.csv", "enqueue")

    rows = await store.read(lambda db: list(read.batches(db, name="0.csv")))

    assert [row["name"] for row in rows] == ["0.csv"]
