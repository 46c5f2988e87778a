"""The daemon follows a system clock that is put forward or back: nothing hurries, nothing waits."""

import asyncio
import gc
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import environment
from stores import rows

from syncd import daemon, upkeep
from syncd.clock import Wall
from syncd.config import load, locate
from syncd.store import Store
from syncd.store.facts import CLOSED_UNTIL

SILENCE_S = 600.0
PATIENCE_S = 10.0


@pytest.fixture
def garbage() -> Iterator[None]:
    """A daemon changes how its process looks for garbage."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
async def test_a_daemon_takes_instants_on_disk_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    """Silence that the vendor asked for lasts as long as it was asked for, over a restart too."""
    monkeypatch.setattr(upkeep, "CLOCK_EVERY_S", 0.01)
    environ = environment(
        tmp_path, SYNCD_API__TOKEN="a-token-of-nobody", SYNCD_API__BASE_URL="http://127.0.0.1:9"
    )
    config = load(None, environ)
    path = locate(config, environ).store
    stepped = 0.0
    wall = Wall(lambda: time.time() + stepped)
    store = await Store.open(path, wall)
    await store.begin(60.0, None, wall.booted_at)
    await store.stay_silent(SILENCE_S)
    await store.end()
    await store.close()
    [(before,)] = rows(path, "SELECT value FROM facts WHERE name = ?", CLOSED_UNTIL)

    it = daemon.Daemon(config, environ, wall=wall)
    serving = asyncio.create_task(it.serve())
    async with asyncio.timeout(PATIENCE_S):
        while not rows(path, "SELECT 1 FROM facts WHERE name = 'running'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stepped = step_s
        while abs(wall.stepped()) > 1.0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        [(after,)] = rows(path, "SELECT value FROM facts WHERE name = ?", CLOSED_UNTIL)
        signal.raise_signal(signal.SIGTERM)
        await serving
    it.deadline.cancel()

    assert float(after) - float(before) == pytest.approx(step_s, abs=1.0)
    store = await Store.open(path, wall)
    await store.begin(60.0, None, wall.booted_at)
    left_s = await store.closed_for_s()
    await store.close()
    assert SILENCE_S - PATIENCE_S < left_s <= SILENCE_S + 1.0
