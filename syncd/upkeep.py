"""Upkeep: what a daemon does now and then, beside its work. Each is a task until cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog

from syncd.clock import Wall
from syncd.errors import SyncdError
from syncd.store import Store, StoreUnavailable

log = structlog.get_logger()

SWEEP_EVERY_S = 3600.0
SWEEP_STEP_S = 0.5  # between steps, so that forgetting never gets in anybody's way
ABANDONED_EVERY_S = 10.0
AGAIN_S = 1.0
LISTENS_EVERY_S = 5.0
CLOCK_EVERY_S = 10.0
CLOCK_STEP_S = 1.0  # slewing stays far below this between two looks
DAY_S = 86_400.0


async def sweep(store: Store, wall: Wall, retention_days: Callable[[], float]) -> None:
    """Forget patches that are older than that, a little at a time."""
    after_id = 0
    while True:
        before = wall() - retention_days() * DAY_S
        try:
            swept = await store.sweep(after_id, before)
        except StoreUnavailable as error:
            log.warning("store.unavailable", doing="sweep", error=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)
            continue
        after_id = swept.upto_id
        await asyncio.sleep(SWEEP_EVERY_S if swept.done else SWEEP_STEP_S)


async def close_abandoned(store: Store, attended: Callable[[], Collection[int]]) -> None:
    """Close the batches that nobody hands in any more: whoever waits for one shall hear of it.

    Where nothing else is written, this is how one knows whether anything could be; soon, once it is
    known that something could not.
    """
    loop, told, due_at = asyncio.get_running_loop(), False, 0.0
    while True:
        if told or store.trouble is not None or loop.time() >= due_at:
            due_at = loop.time() + ABANDONED_EVERY_S
            try:
                await store.close_abandoned(attended())
            except StoreUnavailable as error:
                if not told:
                    log.warning("store.unavailable", doing="close_abandoned", error=str(error))
                told = True
            else:
                if told and store.trouble is None:
                    log.warning("store.available")
                    told = False
        await asyncio.sleep(AGAIN_S)


async def keep_listening(go_on: Callable[[], Awaitable[bool]]) -> None:
    """Make the control socket anew where somebody has removed it. The log hears of each trouble
    once."""
    told = ""
    while True:
        await asyncio.sleep(LISTENS_EVERY_S)
        try:
            if await go_on():
                log.warning("control.listens_again", meaning="its socket had been removed")
            told = ""
        except SyncdError as error:
            if str(error) != told:
                told = str(error)
                log.warning("control.deaf", error=told)


async def keep_time(store: Store, wall: Wall, wake: Callable[[], None]) -> None:
    """Follow a stepped system clock, and take the instants on disk along."""
    while True:
        await asyncio.sleep(CLOCK_EVERY_S)
        step_s = wall.stepped()
        if abs(step_s) < CLOCK_STEP_S:
            continue
        try:
            follow = partial(wall.follow, step_s)
            await store.move_instants(wall.booted_at + step_s, step_s, follow)
        except StoreUnavailable as error:
            log.warning("store.unavailable", doing="keep_time", error=str(error))
            continue
        wake()
        log.warning("daemon.clock_stepped", by_s=round(step_s, 1))
