"""Intake leaves others their turn: producers, and all else that the daemon does."""

import asyncio
import itertools
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taking import FragileStore, Row, drop, line, row, rows_of, running, take_in

from syncd.intake import CHUNK_S, Intake, pause_after
from syncd.spool import Spool


@given(turn_s=st.floats(CHUNK_S / 2, 0.39), begun=st.floats(0.0, 1.0))
def test_whoever_waits_as_sqlite_does_gets_in_within_half_a_second(
    turn_s: float, begun: float
) -> None:
    """Turns follow each other with no more than the pause between them; sleeps are a bit late."""
    round_s = turn_s + pause_after(turn_s)
    waits = [0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.025, 0.025, 0.025, 0.050, 0.050]
    tries = itertools.accumulate([begun * turn_s, *waits, *[0.100] * 10], lambda a, b: a + b + 2e-4)

    got_in = next(at for at in tries if at % round_s >= turn_s)

    assert got_in - begun * turn_s <= 0.5


@pytest.mark.alone
async def test_other_producers_do_not_wait_long_for_a_large_file(
    store: FragileStore, spool: Spool
) -> None:
    """A machine that stops for a moment spoils a try: one of a few must show it whole."""
    tries: list[list[float]] = []
    while len(tries) < 3 and not any(max(waits) < 0.5 for waits in tries):
        tries.append(await waits_beside(store, spool, f"{len(tries)}.jsonl"))

    assert all(len(waits) > 20 for waits in tries)
    assert any(max(waits) < 0.5 for waits in tries), [max(waits) for waits in tries]
    assert [each for each in rows_of(store) if each[0] != "other"] == [
        row(n) for n in range(60_000)
    ] * len(tries)


async def waits_beside(store: FragileStore, spool: Spool, name: str) -> list[float]:
    """How long another producer's INSERTs take while a large file is taken in."""
    stop = threading.Event()
    waits: list[float] = []

    def insert() -> None:
        db = sqlite3.connect(store.path, timeout=10.0, isolation_level=None)
        while not stop.is_set():
            began = time.monotonic()
            db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('other', 'x')")
            waits.append(time.monotonic() - began)
            stop.wait(0.002)
        db.close()

    drop(spool, name, "\n".join(line(n) for n in range(60_000)))
    other = threading.Thread(target=insert)
    other.start()
    async with running(Intake(store, spool), spool) as moves:
        await moves.until(name)
    stop.set()
    other.join()
    return waits


class CoarseClock(asyncio.SelectorEventLoop):
    """A loop whose clock goes by tenths of a second, as uvloop's goes by milliseconds."""

    def time(self) -> float:
        return super().time() // 0.1 / 10


def test_a_chunk_may_take_no_time_at_all(spool: Spool, tmp_path: Path) -> None:
    async def live() -> list[Row]:
        store = await FragileStore.open(tmp_path / "syncd.db", time.time)
        store.refusals = []
        store.closing = asyncio.Event()
        for n in range(10):
            drop(spool, f"{n}.jsonl", line(n))
        await take_in(store, spool, *(f"{n}.jsonl" for n in range(10)))
        await store.close()
        return rows_of(store)

    with asyncio.Runner(loop_factory=CoarseClock) as runner:
        assert sorted(runner.run(live())) == [row(n) for n in range(10)]


async def test_the_loop_stays_free_while_a_file_is_verified(
    store: FragileStore, spool: Spool
) -> None:
    """As one piece of work it would leave room for a beat or two, however fast the machine."""
    drop(spool, "a.json", "[" + ",".join(line(n) for n in range(30_000)) + "]")
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while not rows_of(store):
            await asyncio.sleep(0.001)
            beats += 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beat())
        await take_in(store, spool, "a.json")

    assert beats > 5
