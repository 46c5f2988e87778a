"""The real store on the virtual clock: its statements run inline, and fail or end as planned."""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from syncd.selftest.disk import SQL_ERRORS, Fallible
from syncd.store.connection import Connection, transaction
from syncd.store.errors import translated

T = TypeVar("T")


class Life:
    """One life of the daemon, from its start to its stop or kill."""

    def __init__(self, chance: random.Random, disk_faults: float) -> None:
        self.chance = chance
        self.disk_faults = disk_faults
        self.steps_to_live: int | None = None
        self.killed = asyncio.Event()
        self.called = asyncio.Event()
        """It is time to go: by a kill, or in order."""
        self.met: Counter[str] = Counter()
        """Failures of the disk so far, by name."""

    def kill(self) -> None:
        """From now on nothing happens."""
        self.killed.set()
        self.called.set()

    async def step(self) -> None:
        """A moment in which other things happen, and in which the life may end."""
        if self.steps_to_live is not None and not self.killed.is_set():
            self.steps_to_live -= 1
            if self.steps_to_live <= 0:
                self.kill()
        if self.killed.is_set():
            await asyncio.get_running_loop().create_future()  # nothing happens after the end
        moment = self.chance.random()
        await asyncio.sleep(0.0 if moment < 0.5 else 0.006 * (moment - 0.5))
        if self.killed.is_set():
            await asyncio.get_running_loop().create_future()

    async def outlives(self, work: "asyncio.Task[T]") -> bool:
        """Wait for the work to end, or the life; if the life ends first, so does the work."""
        dying = asyncio.ensure_future(self.killed.wait())
        await asyncio.wait([work, dying], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait([work])
            return False
        dying.cancel()
        await work
        return True

    def fails(self, kind: str) -> int | None:
        """Whether a statement or a commit fails, and how."""
        if not self.disk_faults or self.chance.random() >= self.disk_faults:
            return None
        how = self.chance.randrange(2 * len(SQL_ERRORS))
        after = kind == "commit" and how % 2
        self.met[f"{SQL_ERRORS[how % len(SQL_ERRORS)][1]}{', yet committed' * after}"] += 1
        return how


class Inline(Connection):
    """A connection without a thread, so that a seed decides what happens before what."""

    def __init__(self, db: sqlite3.Connection, life: Life) -> None:
        self._sqlite = db
        self._life = life

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._life.killed.is_set():
            await asyncio.get_running_loop().create_future()
        try:
            result = work(self._sqlite)
        except sqlite3.Error as error:
            raise translated(error, "syncd.db") or error from error
        # What was read or written is known a moment later: much may have happened meanwhile.
        await self._life.step()
        return result

    async def atomic(self, work: Callable[[sqlite3.Connection], T]) -> T:
        await self._life.step()
        return await self.run(lambda db: transaction(db, work))

    async def close(self) -> None:
        self._sqlite.close()


def connecting(life: Life) -> Callable[..., object]:
    """What `Store.open` takes as `connect`."""

    async def connect(opener: Callable[[Path], sqlite3.Connection], path: Path) -> Inline:
        db = opener(path)
        # What a power cut does to a commit is SQLite's own, well-tested affair.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA busy_timeout = 0")  # it would wait in earnest
        return Inline(cast("Any", Fallible(db, life.fails)) if life.disk_faults else db, life)

    return connect
