"""Reading back what a late request may have set back sends nothing again without need."""

import asyncio
import json
from pathlib import Path

import pytest
from stage import TIMEOUT_S, Stage, Vendor, on_stage, virtually

from syncd import log
from syncd.core.answer import NoReply

LOST = NoReply("timeout", "no answer", ambiguous=True)
READ = b"{}"


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Planned trouble is not worth a line each."""
    log.setup("critical")


async def in_doubt(stage: Stage, *metadata: str) -> None:
    """Deliver these one after the other; the first one's first request gets no answer."""
    first, *others = metadata
    stage.vendor.otherwise = LOST
    stage.insert([("run", None, first)])
    while not stage.vendor.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    stage.vendor.otherwise = None
    await stage.delivered(1, within_s=TIMEOUT_S)
    for number, one in enumerate(others, start=2):
        stage.insert([("run", None, one)])
        await stage.delivered(number, within_s=TIMEOUT_S)


@pytest.mark.parametrize("reread", [True, False], ids=["while it runs", "after a restart"])
def test_an_object_that_is_as_it_was_confirmed_is_not_sent_again(
    tmp_path: Path, reread: bool
) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"doc":{"v":1}}', '{"doc":{"v":2}}', '{"other":1}')
            if reread:
                await stage.drained(within_s=4 * TIMEOUT_S)
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await stage.drained(within_s=4 * TIMEOUT_S)

        bodies = [body for _, _, body, _ in vendor.requests]
        assert bodies.count(READ) == 1
        assert len(bodies) == 5
        assert vendor.runs["run"]["metadata"] == {"doc": {"v": 2}, "other": 1}

    virtually(play())


def test_an_object_that_was_set_back_is_mended(tmp_path: Path) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"doc":{"v":1}}', '{"doc":{"v":2}}')
            vendor.runs["run"]["metadata"] = {"doc": {"v": 1}}
            await stage.drained(within_s=4 * TIMEOUT_S)

        sent = [json.loads(body) for _, _, body, _ in vendor.requests if body != READ]
        assert [one["metadata"]["doc"]["v"] for one in sent] == [1, 1, 2, 1, 2]
        assert vendor.runs["run"]["metadata"] == {"doc": {"v": 2}}

    virtually(play())
