"""Each patch of a file is taken once, however often intake is killed or called off."""

import asyncio
import json
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from taking import (
    GOOD,
    FragileStore,
    Killed,
    Moves,
    batches,
    drop,
    ended,
    intake_of,
    line,
    row,
    rows_of,
    take_in,
    tree,
)

from syncd.spool import Spool

MIXED = [line(n) if n % 4 else f"bad {n}" for n in range(30)]
FILES = {
    "a.jsonl": "\n".join(MIXED),
    "b.json": "[" + ",\n".join(each if each[0] == "{" else '"bad"' for each in MIXED) + "]",
    "c.csv": "workflow_run_id,name\n"
    + "".join(f'r{n},"n{n}"\n' if n % 4 else f'r{n},"x"y\n' for n in range(30)),
    "d.jsonl.gz": "\n".join(MIXED),
    "e.json.gz": "[" + ",\n".join(each if each[0] == "{" else "[7]" for each in MIXED) + "]",
}
EXPECTED = [row(n) for n in range(30) if n % 4]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_any_commit_each_patch_is_taken_once(
    store: FragileStore, spool: Spool, name: str, moment: str
) -> None:
    drop(spool, name, FILES[name])
    kills = 0

    while True:
        store.calls = 0
        # The third commit of every life but the last: each life gets a little further.
        store.kill_before, store.kill_after = (3, None) if moment == "before" else (None, 2)
        # What a process had written of the rejects and not recorded.
        for rejects in spool.taking.glob(".*"):
            rejects.write_bytes(rejects.read_bytes() + b'{"line": 99, "half')
        moves = Moves(spool)
        intake = asyncio.create_task(intake_of(store, spool, rows=3).run())
        done = asyncio.create_task(ended(moves, store, name))
        await asyncio.wait({intake, done}, return_when=asyncio.FIRST_COMPLETED)
        finished = done.done()
        for task in (intake, done):
            task.cancel()
        await asyncio.wait({intake, done})
        moves.close()
        if finished:
            break
        assert isinstance(intake.exception(), Killed)
        kills += 1

    rejected = (spool.path / "rejected" / f"{name}.rejected.jsonl").read_text().splitlines()
    assert kills >= 4
    assert rows_of(store) == EXPECTED
    assert [json.loads(each)["line"] for each in rejected] == [
        n + (2 if name == "c.csv" else 1) for n in range(30) if n % 4 == 0
    ]
    assert batches(store)[0] == (name, len(EXPECTED), 0, 8, True)
    assert len(batches(store)) == 1


LIFE = """
import asyncio, sys, time
from pathlib import Path
from syncd.intake import Intake
from syncd.spool import Outlook, Spool
from syncd.spool.ready import Stage
from syncd.store import Store

async def live(home):
    store = await Store.open(home / "syncd.db", time.time)
    await Intake(store, Spool(home / "spool", 0.05, 1 << 30), chunk_rows=50).run()

print("up", flush=True)
asyncio.run(live(Path(sys.argv[1])))
"""


async def test_kill_9_neither_loses_nor_repeats_a_patch(tmp_path: Path, spool: Spool) -> None:
    mixed = [line(n) if n % 7 else f"bad {n}" for n in range(3000)]
    drop(spool, "a.jsonl", "\n".join(mixed))
    drop(spool, "b.jsonl.gz", "\n".join(mixed))
    chance = random.Random(7)

    kills = 0
    while spool.waiting():
        life = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LIFE, os.fspath(tmp_path)), stdout=asyncio.subprocess.PIPE
        )
        assert life.stdout is not None
        await life.stdout.readline()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02 + 0.3 * chance.random()):
                await life.wait()
        life.kill()
        await life.communicate()
        kills += 1

    store = await FragileStore.open(tmp_path / "syncd.db", time.time)
    await store.close()
    good, bad = [n for n in range(3000) if n % 7], [n for n in range(3000) if n % 7 == 0]
    assert kills > 2
    assert rows_of(store) == [row(n) for n in good * 2]
    for name in ("a.jsonl", "b.jsonl.gz"):
        lines = (spool.path / "rejected" / f"{name}.rejected.jsonl").read_text().splitlines()
        assert [json.loads(each)["line"] for each in lines] == [n + 1 for n in bad]


async def test_cancelled_anywhere_it_goes_on_where_it_was(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", "\n".join(line(n) for n in range(2000)))
    loop = asyncio.get_running_loop()

    cancellations = 0
    while spool.waiting():
        task = asyncio.create_task(intake_of(store, spool, rows=20).run())
        loop.call_later(0.003 + 0.002 * cancellations, task.cancel)
        await asyncio.wait({task})
        assert task.cancelled()
        cancellations += 1

    assert cancellations > 3
    assert rows_of(store) == [row(n) for n in range(2000)]


async def test_a_file_killed_between_its_last_commit_and_its_move_is_only_moved(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", GOOD)
    store.kill_after = 1
    with pytest.raises(Killed):
        await intake_of(store, spool).run()
    assert rows_of(store) == [row(1)]
    drop(spool, "a.jsonl", line(2))

    await take_in(store, spool, "a.jsonl", "a.1.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert tree(spool.done) == {"a.jsonl": GOOD, "a.1.jsonl": line(2)}


async def test_a_file_killed_between_its_move_and_its_end_does_not_hide_the_next_of_its_name(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", GOOD)
    store.kill_after = 1
    with pytest.raises(Killed):
        await intake_of(store, spool).run()
    spool.finish("a.jsonl")
    drop(spool, "a.jsonl", line(2))

    await take_in(store, spool, "a.1.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert batches(store) == [("a.jsonl", 1, 0, 0, True), ("a.jsonl", 1, 0, 0, True)]
