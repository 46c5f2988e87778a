"""Silence that the vendor asked for outlives the daemon as long as it was asked for: no longer, no
shorter, whatever the clock or the disk does meanwhile. Found by the simulation."""

import json
from pathlib import Path
from typing import Any

import pytest
from stores import NOON, Wall, opened

from syncd.core.outcome import Blame, Trouble
from syncd.core.patch import Patch
from syncd.core.settlement import Deferred
from syncd.selftest.disk import fallibly
from syncd.store import Cursor, Store, StoreUnavailable
from syncd.store.connection import Connection
from syncd.store.facts import UNCLEAN, fact

HOUR_S = 3600.0
BOOTED_AT = NOON - 5000.0
BUSY = Trouble(Blame.SERVER, "http_429", "slow down")


def deferred(run: str, now: float, silence_s: float) -> Deferred:
    return Deferred(run, now + silence_s, 1, (1,), BUSY, None, now + silence_s, now)


async def test_a_shorter_silence_does_not_end_a_longer_one(tmp_path: Path) -> None:
    """Two answers on the way at once: the last one to be written down asks for less."""
    wall = Wall()
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.settle([deferred("run_1", NOON, 600.0), deferred("run_2", NOON, 5.0)])
        await store.stay_silent(2.0)

        assert await store.closed_for_s() == 600.0


async def test_a_clock_put_back_while_nobody_runs_does_not_prolong_it(tmp_path: Path) -> None:
    wall = Wall()
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "boot", BOOTED_AT)
        await store.settle([deferred("run_1", NOON, 30.0)])
    wall.now = NOON - HOUR_S
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "another boot", BOOTED_AT)

        assert await store.closed_for_s() == 30.0


async def test_a_clock_put_back_with_a_boot_makes_doubts_of_before_no_longer(
    tmp_path: Path,
) -> None:
    """A daemon was killed, the next one stopped in order; then the clock is put back by an hour."""
    wall = Wall()
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "boot", BOOTED_AT)
        await store.begin(60.0, "boot", BOOTED_AT)
        await store.accept([Patch("run_1", "name")])
        await store.end()
    wall.now = NOON - HOUR_S
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "another boot", BOOTED_AT)
        text = await store.read(lambda db: fact(db, UNCLEAN))

        assert text is not None
        assert json.loads(text)["until"] == wall.now + 60.0


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_step_while_nobody_runs_shows_within_one_boot_of_the_machine(
    tmp_path: Path, step_s: float
) -> None:
    """By the clock the boot began at another time: silence and backoff last as long as before."""
    wall = Wall()
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "boot", BOOTED_AT)
        await store.accept([Patch("run_1", "name")])
        await store.settle([deferred("run_1", NOON, 30.0)])
    wall.now += 10.0 + step_s
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "boot", BOOTED_AT + step_s)

        assert await store.closed_for_s() == 20.0
        wall.now += 19.9
        assert (await store.page(Cursor(), (), 10)).lanes == []
        wall.now += 0.2
        assert [lane.run for lane in (await store.page(Cursor(), (), 10)).lanes] == ["run_1"]


async def test_instants_follow_a_step_once_even_if_its_commit_seemed_to_fail(
    tmp_path: Path,
) -> None:
    """It had reached the disk; the daemon hears of an error, and tries again."""
    wall = Wall()
    failures = iter([1])  # the first commit that is asked about fails after the fact
    failing = False

    def fails(kind: str) -> int | None:
        return next(failures, None) if failing and kind == "commit" else None

    async def connect(opener: Any, path: Path) -> Connection:
        return await Connection.open(fallibly(opener, fails), path)

    def follow() -> None:
        wall.now += HOUR_S

    store = await Store.open(tmp_path / "syncd.db", wall, connect=connect)
    await store.begin(60.0, "boot", BOOTED_AT)
    await store.settle([deferred("run_1", NOON, 30.0)])
    failing = True
    with pytest.raises(StoreUnavailable):
        await store.move_instants(BOOTED_AT + HOUR_S, HOUR_S, follow)
    await store.move_instants(BOOTED_AT + HOUR_S, HOUR_S, follow)

    assert await store.closed_for_s() == 30.0
    await store.move_instants(
        BOOTED_AT + 2 * HOUR_S, HOUR_S, follow
    )  # another step is another step
    assert (wall.now, await store.closed_for_s()) == (NOON + 2 * HOUR_S, 30.0)
    await store.close()


async def test_what_is_written_between_a_step_and_its_second_try_does_not_wait_for_longer(
    tmp_path: Path,
) -> None:
    """The first try had reached the disk; what came then was dated by the old clock."""
    wall = Wall()
    async with opened(tmp_path / "syncd.db", wall) as store:
        await store.begin(60.0, "boot", BOOTED_AT)
        await store.move_instants(BOOTED_AT - HOUR_S, -HOUR_S, lambda: None)
        await store.accept([Patch("run_1", "name")])
        await store.settle([deferred("run_1", NOON, 30.0)])

        def follow() -> None:
            wall.now -= HOUR_S

        await store.move_instants(BOOTED_AT - HOUR_S, -HOUR_S, follow)
        wall.now += 30.1
        assert [lane.run for lane in (await store.page(Cursor(), (), 10)).lanes] == ["run_1"]
        assert await store.closed_for_s() <= 30.0
