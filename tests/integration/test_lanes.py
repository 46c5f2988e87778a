"""The lanes in memory are true to the outbox, whatever happens to it while they are read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from stores import deferred, fill, insert

from syncd.core.schedule import Lane, Rank
from syncd.lanes import Lanes
from syncd.store import Page, Selection, Store


class Late(Store):
    """A store whose lanes are stale when they come: something happens between."""

    between: Callable[[], Awaitable[None]] | None = None

    async def page(self, *asked: Any, **limits: Any) -> Page:
        found = await super().page(*asked, **limits)
        await self._meanwhile()
        return found

    async def beside(self, *asked: Any) -> Lane | None:
        found = await super().beside(*asked)
        await self._meanwhile()
        return found

    async def to_probe(self, *asked: Any) -> tuple[Rank, Lane | None] | None:
        found = await super().to_probe(*asked)
        await self._meanwhile()
        return found

    async def _meanwhile(self) -> None:
        if self.between is not None:
            between, self.between = self.between, None
            await between()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Late]:
    it = await Late.open(tmp_path / "syncd.db", time.time)
    yield it
    await it.close()


@pytest.fixture
def lanes(store: Late) -> Lanes:
    return Lanes(store, time.time)


async def discard(store: Store, lanes: Lanes, run: str) -> None:
    """What `control` does for an operator."""
    touched = await store.operate("discard", Selection(run=run), in_flight=())
    assert touched.touched == 1
    lanes.distrust()


async def test_a_failure_that_is_settled_while_a_page_is_read_is_not_forgotten(
    store: Late, lanes: Lanes
) -> None:
    async def defer() -> None:
        due_at = time.time() + 0.05
        await store.settle([deferred("r", 1, due_at=due_at)])
        lanes.expect(due_at)

    await fill(store, ("r", "{}"))
    store.between = defer
    await lanes.refill()
    lane = lanes.take(1)
    assert lane is not None
    lanes.let_go(lane.run)
    async with asyncio.timeout(5.0):  # long before the next slow look
        while not lanes.ready:
            await lanes.rest()
            await lanes.refill()


async def load_last(lanes: Lanes) -> None:
    await lanes.load_to_probe(1.0)


async def load_in_doubt(lanes: Lanes) -> None:
    lanes._probing = 0, 1, ""  # where the run stands
    await lanes.load_in_doubt()


@pytest.mark.parametrize("read", [Lanes.refill, load_last, load_in_doubt])
async def test_what_an_operator_discards_while_it_is_read_is_not_given_out(
    store: Late, lanes: Lanes, read: Callable[[Lanes], Awaitable[None]]
) -> None:
    await fill(store, ("r", "{}"))
    store.between = lambda: discard(store, lanes, "r")

    await read(lanes)

    assert store.between is None
    assert lanes.take(1) is None


async def test_what_comes_while_its_run_is_found_to_have_nothing_left_is_not_passed_by(
    store: Late, lanes: Lanes
) -> None:
    """It is met as that of a run in trouble, whose time is its own; then the trouble is over."""
    await fill(store, ("r", "{}"))
    await store.settle([deferred("r", 1, due_at=time.time())])
    await discard(store, lanes, "r")
    came = False

    def come(sql: str) -> None:
        nonlocal came
        if "min(due_at)" in sql and not came:  # next: what waits behind the cursor
            came = True
            insert(store.path, ("r", "new", None))

    await store._reader.run(lambda db: db.set_trace_callback(come))
    await lanes.refill()
    lanes.wake()
    await lanes.refill()

    lane = lanes.take(1)
    assert came
    assert lane is not None
    assert [patch.name for patch in lane.waiting] == ["new"]
