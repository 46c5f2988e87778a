"""Noticing that somebody has committed to the database, without asking it all the time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from asyncinotify import Inotify, Mask

from syncd.store.access import beside

SOON_S = 0.005  # between looks while a commit may be under way: at least, and at first …
LATER_S = 0.08  # … and at last, the longer ago the last write to the log was, …
ALERT_S = 1.0  # … for so long after it: an fsync may take its time
IDLE_S = 1.0  # between looks otherwise: a sync of a busy disk may take longer still
POLL_S = 0.05  # between looks where inotify is not to be had


async def changes(database: Path, version: Callable[[], Awaitable[int]]) -> AsyncIterator[None]:
    """Yield once at the start, then whenever a transaction of any process has been committed.

    `version` is SQLite's data_version on a connection that only reads. Every commit in WAL mode
    first writes to the -wal file, which is there as long as the store is open, then syncs it, and
    only then can be seen: so a write means to look, and to go on looking for a moment.
    """
    loop = asyncio.get_running_loop()
    seen = await version()
    looked = written = loop.time()  # for all we know: a commit may be under way already
    with ExitStack() as stack:
        inotify = _watching(beside(database, "-wal"), stack)
        yield  # for what came before anybody watched
        while True:
            ago_s = loop.time() - written
            pause_s = min(max(SOON_S, ago_s / 2), LATER_S) if ago_s < ALERT_S else IDLE_S
            try:
                async with asyncio.timeout(pause_s if inotify else POLL_S):
                    if inotify is None:
                        await asyncio.Event().wait()
                    else:
                        await inotify.get()
                        written = loop.time()
            except TimeoutError:
                pass
            # Each page that goes to the log is an event: a busy daemon would do little but look.
            if (early_s := looked + SOON_S - loop.time()) > 0:
                await asyncio.sleep(early_s)
            looked = loop.time()
            now = await version()
            if now != seen:
                seen = now
                yield


def _watching(log: Path, stack: ExitStack) -> Inotify | None:
    try:
        inotify = stack.enter_context(Inotify())
        inotify.add_watch(log, Mask.MODIFY)
    except OSError:  # out of watches or instances
        return None
    return inotify
