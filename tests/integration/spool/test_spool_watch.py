"""The watch on a spool: what wakes it, and what is no news."""

import asyncio
import os
from pathlib import Path

import pytest
from claiming import SETTLE_S, claim, ready

from syncd.spool import Spool
from syncd.spool.ready import Stage
from syncd.spool.watch import Watch

SOON_S = 10.0  # a bound on waiting for what comes at once


async def wait(watch: Watch) -> None:
    """Wait for news, which must come by an event and not by the passing of time."""
    async with asyncio.timeout(SOON_S):
        await watch.wait(2 * SOON_S)


async def test_a_watch_wakes_for_a_file_moved_in_and_for_one_closed_after_writing(
    spool: Spool,
) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.path / "a.json").write_text("x")
        (spool.path / "a.json").rename(spool.incoming / "a.json")
        await wait(watch)
        assert watch.stages == {"a.json": Stage.CLOSED}

        with (spool.incoming / "b.json").open("w"):
            await wait(watch)
            assert watch.stages["b.json"] is Stage.OPENED
        await wait(watch)
        assert watch.stages["b.json"] is Stage.CLOSED

        claim(spool, "a.json").file.close()
        (spool.incoming / "b.json").unlink()
        await wait(watch)
        assert watch.stages == {}


async def test_a_watch_wakes_for_a_file_that_may_be_readable_now(spool: Spool) -> None:
    """Its producer, or an operator, has given it another mode or owner."""
    path = spool.incoming / "a.json"
    path.write_text("x")
    path.chmod(0)
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        path.chmod(0o600)
        await wait(watch)
        os.chown(path, os.geteuid(), os.getegid())
        await wait(watch)

        assert ready(spool, **watch.stages) == ["a.json"]


async def test_our_own_looks_are_no_news(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("x")
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        for _ in range(3):
            spool.scan(watch.stages)
        loop = asyncio.get_running_loop()
        began = loop.time()

        await watch.wait(0.05)

        assert loop.time() - began >= 0.05


async def test_a_watch_finds_a_folder_that_was_made_anew(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=0.01) as watch:
        spool.incoming.rmdir()
        await wait(watch)
        await watch.wait(SOON_S)  # there is nothing to watch: no longer than the fallback
        spool.prepare()
        await watch.wait(0.0)
        (spool.incoming / "a.json").write_text("x")
        await wait(watch)

        assert watch.stages == {"a.json": Stage.CLOSED}


async def test_a_watch_finds_the_folder_of_a_spool_that_was_made_anew(spool: Spool) -> None:
    """No event tells that a folder above was moved away."""
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.incoming / "old.json").write_text("x")
        await wait(watch)
        spool.path.rename(spool.path.with_name("aside"))
        spool.prepare()
        await wait(watch)
        assert watch.stages == {}

        (spool.incoming / "a.json").write_text("x")
        await wait(watch)

        assert watch.stages == {"a.json": Stage.CLOSED}


async def test_a_watch_that_waits_notices_that_the_spool_was_moved_away(spool: Spool) -> None:
    """Though no event tells, and long before the time is up."""
    async with Watch(spool.incoming, fallback_s=SETTLE_S, look_s=0.05) as watch:
        waiting = asyncio.create_task(wait(watch))
        await watching(watch)
        spool.path.rename(spool.path.with_name("aside"))
        await waiting

        assert not spool.path.exists()


async def watching(watch: Watch) -> None:
    """Wait until it waits for an event."""
    async with asyncio.timeout(SOON_S):
        while watch._event is None:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0)


async def test_a_burst_of_events_is_taken_in_at_once(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        for n in range(200):
            (spool.incoming / f"{n}.json").write_text("x")
        await wait(watch)

        assert len(watch.stages) == 200
        assert set(watch.stages.values()) == {Stage.CLOSED}


QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.mark.skipif(QUEUED > 50_000, reason="the system's queue of events is too long to fill")
async def test_what_is_known_is_forgotten_when_events_are_lost(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.incoming / "a.json").write_text("x")
        await wait(watch)
        for n in range(QUEUED // 2 + 10):
            with (spool.incoming / f".{n % 2}").open("w"):
                pass
        while watch.stages.get("a.json"):
            await wait(watch)

        assert ready(spool) == ["a.json"]
