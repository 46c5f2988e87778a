"""The store: accept, page, settle, read. Whoever holds one need not know that it is SQLite."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from syncd.core.patch import Patch
from syncd.core.schedule import Lane, Rank
from syncd.core.settlement import Settlement
from syncd.core.suspect import Suspect
from syncd.store import (
    accept,
    facts,
    found,
    instants,
    page,
    read,
    retention,
    schema,
    settle,
    suspects,
    verbs,
    watch,
)
from syncd.store.accept import Accepted, Place
from syncd.store.access import identity
from syncd.store.connection import Connection, transaction
from syncd.store.errors import StoreMoved, StoreUnavailable, StoreUnseen
from syncd.store.lane import load_lane
from syncd.store.lock import PATIENCE_S, acquire, hold, let_go, sign
from syncd.store.page import Cursor, Found, Page
from syncd.store.retention import Swept
from syncd.store.verbs import Selection, Touched, Verb

T = TypeVar("T")
Wall = Callable[[], float]
Query = Callable[[sqlite3.Connection], Iterator[read.Row]]
NextPart = Callable[[], Awaitable[bytes]]
Connect = Callable[[Callable[[Path], sqlite3.Connection], Path], Awaitable[Connection]]

SEARCH_STEPS = 10_000  # of SQLite's machine, a millisecond: then it is asked whether to go on
ALONE_S = 3.0  # for the one connection on which a file that was moved away can be read


class Store:
    """The daemon's hold on the database: one writer, two readers, one lock.

    Every method that writes is one transaction: on disk when it returns, undone when it raises,
    whole when its caller is cancelled. StoreUnavailable means that the same call may work later.
    """

    def __init__(
        self,
        path: Path,
        writer: Connection,
        reader: Connection,
        onlooker: Connection,
        *,
        locks: Sequence[int],
        wall: Wall,
        connect: Connect,
    ) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._onlooker = onlooker
        self._locks = locks
        self._wall = wall
        self._connect = connect
        self._file = identity(path)
        self._alone = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        path: Path,
        wall: Wall,
        *,
        group_access: str | None = None,
        connect: Connect = Connection.open,
        patience_s: float = PATIENCE_S,
    ) -> Self:
        """Open the database, made and migrated as needed; hold it alone.

        Raises StoreInUse if another process does and goes on to, for so many seconds; StoreError if
        it cannot be used.
        """
        schema.is_there(path)
        locks = [await acquire(path, patience_s)]

        def opener(path: Path) -> sqlite3.Connection:
            schema.prepare(path, group_access)
            locks.append(hold(path))
            return schema.open_writer(path, group_access)

        async with AsyncExitStack() as undone:
            undone.callback(let_go, locks)
            writer = await connect(opener, path)
            undone.push_async_callback(writer.close)
            reader = await connect(schema.open_reader, path)
            undone.push_async_callback(reader.close)
            onlooker = await connect(schema.open_reader, path)
            undone.pop_all()
        return cls(path, writer, reader, onlooker, locks=locks, wall=wall, connect=connect)

    async def close(self) -> None:
        """Write the log back into the database and let go of it."""
        await self._onlooker.close()
        await self._reader.close()
        await self._writer.close()
        let_go(self._locks)

    def moved(self) -> StoreUnavailable | None:
        """Why the file is not known to be at its place any more, if so: it blocks for a moment."""
        try:
            return None if identity(self.path) == self._file else StoreMoved(self.path)
        except OSError as error:
            return StoreUnseen(self.path, error)

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why nothing could be written when somebody tried last, if so."""
        return self._writer.trouble

    def now(self) -> float:
        """The wall clock that rows are stamped with."""
        return self._wall()

    async def _taking(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A transaction that takes something in: not into a file that may have been moved away."""

        def in_place(db: sqlite3.Connection) -> T:
            if moved := self.moved():
                raise moved
            return work(db)

        return await self._writer.atomic(in_place)

    async def open_batch(self, name: str, source: str) -> Place:
        """The place in a new batch; for a file of the spool in its unfinished one, if any."""
        return await self._taking(lambda db: accept.open_batch(db, name, source, self._wall()))

    async def accept(self, patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        """Append patches, and record how far their file is taken, in one transaction."""
        return await self._taking(lambda db: accept.accept(db, patches, place, self._wall()))

    async def close_batch(
        self, batch_id: int, rejected: int | None = None, *, refused: str | None = None
    ) -> Accepted:
        """The batch's file has left the spool; so many of its lines are no patches. What is in.

        `refused` says why it could not be read to its end.
        """
        return await self._writer.atomic(
            lambda db: accept.close_batch(db, batch_id, self._wall(), rejected, refused)
        )

    async def close_batches_but(self, begun: Sequence[str]) -> None:
        """Of the spool's unfinished batches only those of these files go on."""
        await self._writer.atomic(lambda db: accept.close_batches_but(db, begun, self._wall()))

    async def close_abandoned(self, attended: Collection[int]) -> None:
        """Batches of `syncd enqueue` that are not among these and no longer grow are cut off.

        While there is trouble something is written in any case: only that shows that it is over.
        """

        def work(db: sqlite3.Connection) -> None:
            accept.close_abandoned(db, attended, self._wall())
            if self.trouble is not None:
                facts.set_fact(db, facts.TRIED, str(self._wall()))

        await self._writer.atomic(work)

    async def page(
        self,
        cursor: Cursor,
        loaded: Collection[str],
        limit: int,
        due: tuple[int, int] | None = None,
    ) -> Page:
        """The next lanes that may go; those in trouble that are due within limits of their own."""
        return await self._reader.run(
            lambda db: page.page(db, cursor, loaded, limit, self._wall(), due=due)
        )

    async def to_probe(self, share: float | None, loaded: Collection[str]) -> Found | None:
        """Where in line a probe is to go, and the lane of there unless it is loaded."""
        return await self._reader.run(lambda db: page.to_probe(db, share, loaded, self._wall()))

    async def beside(self, rank: Rank, most: float, loaded: Collection[str]) -> Lane | None:
        """The lane next to there that may go, is not loaded, and has failed at `most` so often."""
        return await self._reader.run(lambda db: page.beside(db, rank, most, loaded, self._wall()))

    async def lane(self, run: str) -> Lane | None:
        """The lane of one run as it stands now, in trouble or not."""
        return await self._reader.run(lambda db: load_lane(db, run))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle a group of answers, at most one for each run, in one commit."""
        await self._writer.atomic(lambda db: settle.settle(db, settlements, self._wall()))

    async def recall(self) -> int:
        """Lanes deferred by failures of the server are due now."""
        return await self._writer.atomic(lambda db: settle.recall(db, self._wall()))

    async def begin(self, suspect_s: float, boot: str | None, booted_at: float) -> bool:
        """Note that a daemon runs; True if the last one did not stop in order.

        `boot`: which boot of the machine this is, None if nobody knows, and when it began by the
        wall clock. If that is another time than the last daemon has found for the same boot, the
        clock was stepped since, and due times on disk go along.
        """
        sign(self._locks[0])

        def work(db: sqlite3.Connection) -> bool:
            instants.begin(db, self._wall(), boot, booted_at)
            return suspects.begin(db, self._wall(), suspect_s)

        return await self._writer.atomic(work)

    async def stay_silent(self, for_s: float) -> None:
        """The server asks for silence, which a restart must not break."""
        now = self._wall()
        await self._writer.atomic(lambda db: settle.stay_silent(db, now + for_s, now))

    async def closed_for_s(self) -> float:
        """Seconds for which the server's last Retry-After still asks for silence."""
        text = await self._reader.run(lambda db: facts.fact(db, facts.CLOSED_UNTIL))
        return max(0.0, float(text or 0.0) - self._wall())

    async def move_instants(
        self, booted_at: float, step_s: float, follow: Callable[[], None]
    ) -> None:
        """The wall clock is stepped, and now has it that the machine has booted then.

        Due times on disk go along. `follow` steps the clock itself by `step_s`, before anything
        else is written by it.
        """

        def step(db: sqlite3.Connection) -> None:
            now = self._wall() + step_s
            transaction(db, lambda db: instants.move(db, booted_at, now))
            follow()

        await self._writer.run(step)

    async def end(self) -> None:
        """Note that the daemon stops in order, with nothing in flight."""
        await self._writer.atomic(suspects.end)

    async def suspect(self, busy: Collection[str]) -> tuple[Suspect | None, float | None]:
        """A run that can be checked now, if any; and when the next one is due."""
        return await self._reader.run(lambda db: suspects.due(db, self._wall(), busy))

    async def suspect_of(self, run: str) -> Suspect | None:
        """The suspicion against a run as it stands now, if it is due."""
        return await self._reader.run(lambda db: suspects.of(db, run, self._wall()))

    async def put_off(self, suspect: Suspect, for_s: float) -> None:
        """It could not be read back."""
        await self._writer.atomic(lambda db: suspects.put_off(db, suspect, self._wall() + for_s))

    async def clear(self, suspect: Suspect) -> None:
        """The run is as it should be."""
        await self._writer.atomic(lambda db: suspects.clear(db, suspect))

    async def send_again(self, suspect: Suspect, keys: Collection[str]) -> Collection[int]:
        """These keys are unconfirmed: the patches that mend them, which are pending again."""
        return await self._writer.atomic(lambda db: suspects.send_again(db, suspect, keys))

    async def untrouble(self, runs: Sequence[str]) -> None:
        """These lanes have nothing left that could be deferred."""
        await self._writer.atomic(lambda db: settle.untrouble(db, runs))

    async def operate(
        self,
        verb: Verb,
        selection: Selection,
        *,
        in_flight: Collection[int],
        force: bool = False,
        now: float | None = None,
    ) -> Touched:
        """An operator's verb; patches in flight are left alone and counted."""
        touch: Callable[..., Touched]
        match verb:
            case "retry":
                touch = partial(verbs.retry, force=force)
            case "release":
                touch = partial(verbs.release, force=force)
            case "discard":
                touch = verbs.discard
            case "hold":
                touch = verbs.hold
        return await self._writer.atomic(
            lambda db: touch(
                db, selection, in_flight=in_flight, now=self._wall() if now is None else now
            )
        )

    async def chosen(self, verb: Verb, selection: Selection) -> Sequence[int]:
        """The patches that the verb would touch, as they stand now. Nobody waits for the search."""
        async with self._apart() as connection:
            return await connection.run(lambda db: verbs.chosen(db, verb, selection))

    async def sweep(self, after_id: int, before: float) -> Swept:
        """One step of forgetting what was settled before an instant."""
        return await self._writer.atomic(lambda db: retention.sweep(db, after_id, before))

    async def remember(self, name: str, value: str | None) -> None:
        """Keep a small fact beyond this process's life; None forgets it.

        Not in a file that may have been moved away: to whoever finds that, it would still hold.
        """
        write = self._taking if value is None else self._writer.atomic
        await write(lambda db: facts.set_fact(db, name, value))

    async def changes(self) -> AsyncIterator[None]:
        """Yield when a transaction of any process, this one included, has been committed."""
        async for change in watch.changes(self.path, self._data_version):
            yield change

    async def _data_version(self) -> int:
        return await self._reader.run(
            lambda db: int(db.execute("PRAGMA data_version").fetchone()[0])
        )

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short one of the queries of `store.read`: delivery reads on another connection."""
        return await self._onlooker.run(query)

    @asynccontextmanager
    async def parts(self, query: Query) -> AsyncIterator[NextPart]:
        """Rows of any number as lines of JSON: a call for each next part, empty at the end.

        Delivery never waits for them. Leaving ends a search that goes on, but not one in a file
        that was moved away: that can be read where it is open, by one at a time.
        """
        moved = await asyncio.to_thread(self.moved)
        async with self._apart() if moved is None else self._opened(moved) as connection:
            lines = await connection.run(lambda db: map(read.encode, query(db)))
            yield lambda: connection.run(lambda _: found.part_of(lines))

    @asynccontextmanager
    async def _opened(self, moved: StoreUnavailable) -> AsyncIterator[Connection]:
        """The connection of short answers. Whoever waits too long for it is told why."""
        try:
            await asyncio.wait_for(self._alone.acquire(), ALONE_S)
        except TimeoutError:
            raise moved from None
        try:
            yield self._onlooker
        finally:
            self._alone.release()

    @asynccontextmanager
    async def _apart(self) -> AsyncIterator[Connection]:
        """One more connection to read on; leaving ends what still runs on it.

        Not on whatever is in the place of a file that was moved away.
        """
        left = False

        def opener(path: Path) -> sqlite3.Connection:
            if moved := self.moved():
                raise moved
            db = schema.open_reader(path)
            db.set_progress_handler(lambda: left, SEARCH_STEPS)
            return db

        connection = await self._connect(opener, self.path)
        try:
            yield connection
        finally:
            left = True
            await connection.close()
