"""What an operator has taken back is not sent, whichever read of the outbox fails meanwhile."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from stage import Vendor, on_stage, virtually

from syncd import log
from syncd.selftest.disk import Fallible
from syncd.selftest.store import Inline, Life
from syncd.store import Selection
from syncd.store.schema import open_reader


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Planned trouble is not worth a line each."""
    log.setup("critical")


class Disk:
    """Fails the n-th statement of the reader from some moment on, once."""

    def __init__(self) -> None:
        self.left: int | None = None

    def fails(self, _: str) -> int | None:
        if self.left is None:
            return None
        self.left -= 1
        return 1 if self.left == 0 else None

    async def connect(self, opener: Callable[[Path], sqlite3.Connection], path: Path) -> Inline:
        db: Any = opener(path)
        db.execute("PRAGMA synchronous = OFF")
        if opener is open_reader:
            db = cast("Any", Fallible(db, self.fails))
        return Inline(db, Life(random.Random(5), 0.0))


@pytest.mark.parametrize("nth", range(1, 13))
def test_a_discarded_patch_does_not_go_with_a_lane_that_could_not_be_read_anew(
    tmp_path: Path, nth: int
) -> None:
    async def play() -> None:
        vendor, disk = Vendor(), Disk()
        async with on_stage(tmp_path / "syncd.db", vendor, connect=disk.connect) as stage:
            stage.relay.policy = replace(stage.relay.policy, fold=False)
            stage.insert([("run", None, json.dumps({"n": n})) for n in (1, 2, 3)])
            while not vendor.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with stage.relay.standing_still() as in_flight:
                touched = await stage.store.operate(
                    "discard", Selection(ids=(2,)), in_flight=in_flight
                )
            assert touched.touched == 1
            disk.left = nth
            await stage.delivered(2, within_s=60.0)

        sent = [json.loads(body)["metadata"]["n"] for _, _, body, _ in vendor.requests]
        assert sent == [1, 3]

    virtually(play())
