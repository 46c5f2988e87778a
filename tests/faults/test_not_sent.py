"""A request that connected before a gate that was shut meanwhile has not happened."""

import asyncio
from pathlib import Path

from stage import TIMEOUT_S, Vendor, on_stage, virtually

from syncd import log
from syncd.core.answer import NotSent


def test_what_was_not_sent_waits_as_if_it_had_never_been_tried(tmp_path: Path) -> None:
    log.setup("critical")

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            vendor.otherwise = NotSent()
            stage.insert([(f"run {n}", None, '{"v":1}') for n in range(20)])
            while len(vendor.requests) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert not stage.gate.shut
            assert stage.rows("SELECT sum(attempts) FROM outbox") == [(0,)]
            assert stage.rows("SELECT count(*) FROM lanes") == [(0,)]
            assert stage.rows("SELECT count(*) FROM suspects") == [(0,)]
            vendor.otherwise = None
            await stage.delivered(20, within_s=TIMEOUT_S)
            assert stage.gate.figures().in_flight == 0

    virtually(play())
