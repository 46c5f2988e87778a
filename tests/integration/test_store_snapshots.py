"""Snapshots: a run as the vendor sent it, found by its status and metadata."""

import json

import orjson
import pytest
from msgspec.structs import replace
from stores import (
    NOON,
    Wall,
    delivered,
    fill,
    run,
)

from syncd.cli.snapshots import page
from syncd.core.answer import run_in
from syncd.core.settlement import Delivered
from syncd.store import Store, read


async def test_a_snapshot_is_the_run_as_the_vendor_sent_it(store: Store) -> None:
    await fill(store, ("r", "{}"), ("r", "{}"))
    raw = b'{\n  "id": "r",\n  "n": 12345678901234567890123\n}'
    await store.settle([Delivered(replace(run("r"), raw=raw), (1, 2), False)])

    line = await store.read(lambda db: read.encode(read.snapshot(db, "r")))

    assert len(line.splitlines()) == 1
    assert b"12345678901234567890123" in line
    assert json.loads(line).keys() == {
        *("workflow_run_id", "fetched_at", "patch_ids", "workflow_run"),
    }
    assert await store.read(lambda db: read.snapshot(db, "s")) is None


@pytest.mark.parametrize("half", [b"\\ud83d", b"\xff", b"\xf0\x9f"])
async def test_a_snapshot_with_half_a_character_is_shown_and_found(
    store: Store, half: bytes
) -> None:
    answer = run_in(b'{"id":"r","metadata":{"k":1.50,"t":"%b"},"outputs":"cut %b"}' % (half, half))
    assert answer is not None
    await fill(store, ("r", "{}"))
    await store.settle([Delivered(answer, (1,), False)])

    line = await store.read(lambda db: read.encode(read.snapshot(db, "r")))
    found = await store.read(lambda db: [*read.runs(db, where=[("k", "1.5"), ("t", "\ufffd")])])

    assert [read.encode(row) for row in found]
    assert orjson.loads(line)["workflow_run"]["outputs"].startswith("cut \ufffd")
    assert "1.50" in "\n".join(page(line, NOON))


async def cached(store: Store) -> None:
    """Four runs: numbers, strings and other kinds of values in their metadata."""
    await fill(store, ("a", "{}"), ("b", "{}"), ("c", "{}"), ("d", "{}"))
    await store.settle([delivered("a", 1, metadata='{"n":7,"t":true}', name="first")])
    await store.settle([delivered("b", 2, metadata='{"n":"7","x":null}', status="FAILED")])
    await store.settle([delivered("c", 3, metadata='{"n":1.5,"o":{"k":[1]},"k.y\\"":"q"}')])
    written = (
        r'{"r":1.50,"e":1E+2,"i":12345678901234567890123,"q\"":1.50,"s":"é \"x\"","w":"\"7\""}'
    )
    await store.settle([delivered("d", 4, metadata=written)])


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ([], "abcd"),
        ([("n", "7")], "ab"),
        ([("n", "1.5")], "c"),
        ([("t", "true")], "a"),
        ([("t", "1")], ""),
        ([("x", "null")], "b"),
        ([("o", '{"k":[1]}')], "c"),
        ([('k.y"', "q")], "c"),
        ([("n", "7"), ("t", "true")], "a"),
        ([("missing", "7")], ""),
        ([("r", "1.50")], "d"),
        ([("r", "1.5")], "d"),
        ([("e", "1E+2")], "d"),
        ([("e", "100.0")], "d"),
        ([("i", "12345678901234567890123")], "d"),
        ([('q"', "1.5")], "d"),
        ([("n", '"7"')], "b"),
        ([("s", '"\\u00e9 \\"x\\""')], "d"),
        ([("s", 'é "x"')], "d"),
        ([("w", '"7"')], "d"),
    ],
)
async def test_cached_runs_are_found_by_their_metadata(
    store: Store, where: list[tuple[str, str]], found: str
) -> None:
    await cached(store)

    rows = await store.read(lambda db: list(read.runs(db, where=where)))

    assert sorted(row["workflow_run_id"] for row in rows) == list(found)


async def test_cached_runs_are_found_by_status_newest_first(store: Store, wall: Wall) -> None:
    await cached(store)
    await fill(store, ("a", "{}"))
    wall.now = NOON + 5
    await store.settle([delivered("a", 5)])

    everything = await store.read(lambda db: list(read.runs(db)))
    failed = await store.read(lambda db: list(read.runs(db, status="FAILED")))
    first = await store.read(lambda db: list(read.runs(db, limit=1)))

    assert everything[0]["workflow_run_id"] == first[0]["workflow_run_id"] == "a"
    assert [row["workflow_run_id"] for row in failed] == ["b"]
    assert everything[0].keys() == {
        *("workflow_run_id", "fetched_at", "status", "name", "metadata"),
    }
