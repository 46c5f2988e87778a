"""The real store on the virtual clock: its statements run inline, and fail or end as planned."""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from syncd.store.connection import Connection, transaction
from syncd.store.errors import StoreBusy, StoreFull

T = TypeVar("T")


class Life:
    """One life of the daemon, from its start to its stop or kill."""

    def __init__(self, chance: random.Random, disk_faults: float) -> None:
        self.chance = chance
        self.disk_faults = disk_faults
        self.steps_to_live: int | None = None
        self.killed = asyncio.Event()

    async def step(self) -> None:
        """A moment in which other things happen, and in which the life may end."""
        if self.steps_to_live is not None and not self.killed.is_set():
            self.steps_to_live -= 1
            if self.steps_to_live <= 0:
                self.killed.set()
        if self.killed.is_set():
            await asyncio.get_running_loop().create_future()  # nothing happens after the end
        await asyncio.sleep(self.chance.uniform(0.0, 0.003))


class Inline(Connection):
    """A connection without a thread, so that a seed decides what happens before what."""

    def __init__(self, db: sqlite3.Connection, life: Life) -> None:
        self._sqlite = db
        self._life = life

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        life = self._life
        await life.step()
        if life.killed.is_set():
            await asyncio.get_running_loop().create_future()
        if life.chance.random() < life.disk_faults:
            raise life.chance.choice([StoreBusy, StoreFull])("planned")
        result = work(self._sqlite)
        await life.step()
        return result

    async def atomic(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self.run(lambda db: transaction(db, work))

    async def close(self) -> None:
        self._sqlite.close()


def connecting(life: Life) -> Callable[..., object]:
    """What `Store.open` takes as `connect`."""

    async def connect(opener: Callable[[Path], sqlite3.Connection], path: Path) -> Inline:
        db = opener(path)
        # What a power cut does to a commit is SQLite's own, well-tested affair.
        db.execute("PRAGMA synchronous = OFF")
        return Inline(db, life)

    return connect
