"""Taking files in: from the spool into the outbox, a chunk at a time, each patch once."""

import asyncio
import errno
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import orjson
import structlog

from syncd.core.looks import Looks
from syncd.core.patch import Patch
from syncd.formats import Chunk, Format, Position, Reject, Unreadable, chunks, format_of, verifying
from syncd.spool import Candidate, Refuse, Spool, Taken, printable
from syncd.spool.watch import Watch
from syncd.store import Accepted, Place, Store, StoreUnavailable

log = structlog.get_logger()

SOURCE = "spool"
CHUNK_ROWS, FIRST_ROWS, FEWEST_ROWS = 20_000, 1000, 100
CHUNK_S = 0.080  # a chunk has as many rows as can be written in that time
RESCAN_S = 30.0
RETRY_BASE_S, RETRY_CAP_S = 0.1, 5.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IntakeFigures:
    """How intake stands."""

    file: str | None = None
    """The file being taken in."""
    offset: int = 0
    """How far, in its decompressed bytes."""
    line: int = 0
    trouble: str | None = None
    """What everything waits for: a full disk, a locked database."""
    left: tuple[str, ...] = ()
    """Files that cannot be opened, read or moved, and why; they are tried again now and then."""


@dataclass(slots=True)
class _Work:
    """A file under way."""

    taken: Taken
    place: Place
    accepted: int = 0
    duplicates: int = 0


class Intake:
    """Moves what producers drop into the outbox. `run` is its life; its owner cancels it.

    Cancelled, it leaves each chunk in the outbox whole or not at all; the next `run`, in whatever
    process, goes on after the last whole one.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        chunk_rows: int = CHUNK_ROWS,
        rescan_s: float = RESCAN_S,
    ) -> None:
        self._store = store
        self._spool = spool
        self._most_rows = chunk_rows
        self._rows = min(FIRST_ROWS, chunk_rows)
        self._rescan_s = rescan_s
        self._work: _Work | None = None
        self._trouble: str | None = None
        self._left: dict[str, str] = {}
        self._left_before: dict[str, str] = {}
        self._is_growing = False
        self._turn_began = self._wrote_at = self._others_until = 0.0
        self.watching = asyncio.Event()
        """Set once whatever is dropped is noticed."""

    @property
    def figures(self) -> IntakeFigures:
        """How it stands now."""
        left = tuple(f"{printable(name)}: {why}" for name, why in self._left.items())
        if self._work is None:
            return IntakeFigures(trouble=self._trouble, left=left)
        taken, place = self._work.taken, self._work.place
        return IntakeFigures(printable(taken.name), place.offset, place.line, self._trouble, left)

    async def run(self) -> None:
        """Take in what is there and what comes, one file at a time, until cancelled."""
        await self._insist(lambda: self._in_thread(self._spool.prepare))
        # A kill may have come between a file's last move and the word that it has been moved.
        leftovers = await self._insist(lambda: self._in_thread(self._spool.leftovers))
        begun = [printable(name) for name in leftovers]
        await self._insist(lambda: self._store.close_batches_but(begun))
        async with Watch(self._spool.incoming, fallback_s=self._spool.settle_s) as watch:
            self.watching.set()
            loop, looks = asyncio.get_running_loop(), Looks()
            while True:
                began = loop.time()
                moved, again_s = await self._round(watch)
                looks = Looks() if moved else looks.found_nothing(began, loop.time())
                if not moved:
                    await watch.wait(min(again_s, self._rescan_s))
                    await asyncio.sleep(looks.pause_s(loop.time()))

    async def _round(self, watch: Watch) -> tuple[bool, float]:
        """Deal with every file there is; whether one has moved, and when to look again."""
        await watch.wait(0)  # what is known of a file must not be older than the look at it
        moved = False
        self._left_before, self._left = self._left, {}
        self._is_growing = False
        for name in await self._insist(lambda: self._in_thread(self._spool.leftovers)):
            moved |= await self._attempt(name, self._resume(name))
        stages = dict(watch.stages)
        outlook = await self._insist(lambda: self._in_thread(self._spool.scan, stages))
        for name, reason in outlook.refused:
            moved |= await self._attempt(name, self._refuse(name, reason))
        for candidate in outlook.ready:
            moved |= await self._attempt(candidate.name, self._take(candidate))
        again_s = self._rescan_s if outlook.look_again_s is None else outlook.look_again_s
        return moved, min(again_s, self._spool.settle_s) if self._is_growing else again_s

    async def _attempt(self, name: str, work: Awaitable[None]) -> bool:
        """Do something with one file; what stands in its way shall not stop the others."""
        try:
            await work
        except FileNotFoundError:
            return False  # its producer, or an operator, has taken it back
        except OSError as error:
            self._is_growing |= isinstance(error, BlockingIOError)
            hindrance = await self._in_thread(self._spool.hindrance, error)
            why = hindrance or error.strerror or str(error)
            if self._left_before.get(name) != why:
                log.warning("file.left", file=printable(name), error=why)
            self._left[name] = why
            return False
        finally:
            self._work = None
        return True

    async def _refuse(self, name: str, reason: str) -> None:
        await self._in_thread(self._spool.refuse, name, reason)
        log.warning("file.rejected", file=printable(name), reason=reason)

    async def _take(self, candidate: Candidate) -> None:
        taken = await self._in_thread(self._spool.open, candidate)
        # Before the file moves, so that one in `taking/` always belongs to the open batch of its
        # name. If that batch has begun, its file has left the spool: this is another.
        place = await self._open_batch(candidate.name)
        if place != Place(place.batch_id):
            await self._close_batch(place)
            place = await self._open_batch(candidate.name)
        claimed = await self._in_thread(self._spool.claim, taken)
        await self._finish(candidate.name, claimed, place)

    async def _resume(self, name: str) -> None:
        """Go on with a file that was claimed before."""
        taken = await self._in_thread(self._spool.resume, name)
        place = await self._open_batch(name)
        recorded = place.rejects_bytes
        await self._insist(lambda: self._in_thread(self._spool.cut_rejects, name, recorded))
        await self._finish(name, taken, place)

    async def _finish(self, name: str, taken: Taken | Refuse, place: Place) -> None:
        """Take a claimed file in, then move it out of the way."""
        if isinstance(taken, Refuse):
            await self._reject(name, place, taken.reason)
            return
        with taken.file:
            work = self._work = _Work(taken, place)
            refusal = None if place.taken else await self._read(work)
        if refusal is not None:
            await self._reject(name, work.place, refusal)
            return
        await self._insist(lambda: self._in_thread(self._spool.finish, name))
        await self._close_batch(place)
        log.info(
            "file.taken",
            file=printable(name),
            accepted=work.accepted,
            duplicates=work.duplicates,
            rejected=work.place.rejected,
        )

    async def _reject(self, name: str, place: Place, reason: str) -> None:
        await self._insist(lambda: self._in_thread(self._spool.reject, name, reason))
        await self._close_batch(place, refused=reason)
        log.warning("file.rejected", file=printable(name), reason=reason)

    async def _read(self, work: _Work) -> str | None:
        """Put the rest of a file into the outbox. The reason if it cannot be read.

        Raises BlockingIOError if somebody still writes to it; what was read is kept.
        """
        kind = format_of(work.taken.name)
        if kind is None:
            return "is of another kind: .json, .jsonl, .ndjson, .csv, each also as .gz, are read"
        size = work.taken.size()
        if size > self._spool.max_file_bytes:
            return f"holds {size} bytes: more than spool.max_file_bytes"
        if work.taken.is_written():
            raise BlockingIOError(errno.EBUSY, "a process has it open for writing")
        try:
            await self._read_to(size, work, kind)
        except Unreadable as unreadable:
            if work.taken.size() == size:
                return str(unreadable)
            raise BlockingIOError(errno.EBUSY, _GROWING) from unreadable
        return None

    async def _read_to(self, size: int, work: _Work, kind: Format) -> None:
        file, limit = work.taken.file, self._spool.max_file_bytes
        start = Position(work.place.offset, work.place.line)
        if kind.needs_verifying and start == Position():
            steps = verifying(file, kind, limit=limit)
            while await self._in_thread(next, steps, None) is not None:
                pass
        reader = await self._in_thread(
            lambda: chunks(
                file,
                kind,
                start=start,
                rows=lambda: self._rows,
                closed=work.taken.closed,
                limit=limit,
            )
        )
        while (chunk := await self._in_thread(next, reader, None)) is not None:
            if chunk.last and work.taken.size() != size:
                raise BlockingIOError(errno.EBUSY, _GROWING)
            await self._keep(work, chunk)

    async def _keep(self, work: _Work, chunk: Chunk) -> None:
        """Put a chunk into the outbox, its rejects on disk first: the place covers both."""
        name, before = work.taken.name, work.place
        rejects_bytes = before.rejects_bytes
        if chunk.rejects:
            lines = [_lines(chunk.rejects)]
            rejects_bytes = await self._insist(
                lambda: self._in_thread(self._spool.add_rejects, name, before.rejects_bytes, lines)
            )
        place = Place(
            before.batch_id,
            chunk.end.offset,
            chunk.end.line,
            before.rejected + len(chunk.rejects),
            rejects_bytes,
            chunk.last,
        )
        accepted = await self._in_turn(name, chunk.patches, place)
        work.place = place
        work.accepted += accepted.accepted
        work.duplicates += accepted.duplicates

    async def _in_turn(self, name: str, patches: list[Patch], place: Place) -> Accepted:
        """Write a chunk when it is not the other producers' turn; how large the next may be."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._others_until - loop.time()))
        began = loop.time()
        if began - self._wrote_at >= pause_after(0.0):  # long enough for others
            self._turn_began = began
        accepted = await self._insist(lambda: self._accept(name, patches, place))
        self._wrote_at = loop.time()
        turn_s = self._wrote_at - self._turn_began
        if turn_s >= CHUNK_S / 2:
            self._others_until = self._wrote_at + pause_after(turn_s)
        # uvloop's clock goes by whole milliseconds: a chunk of a few lines takes none at all.
        speed = CHUNK_S / max(self._wrote_at - began, 0.001)
        if speed < 1.0 or len(patches) >= self._rows // 2:
            fitting = max(FEWEST_ROWS, int(len(patches) * min(2.0, speed)))
            self._rows = min(self._most_rows, fitting)
        return accepted

    async def _accept(self, name: str, patches: list[Patch], place: Place) -> Accepted:
        # A commit that failed may have reached the disk all the same.
        if (
            self._trouble is not None
            and await self._store.open_batch(printable(name), SOURCE) == place
        ):
            return Accepted(len(patches), 0, None, None)
        return await self._store.accept(patches, place)

    async def _open_batch(self, name: str) -> Place:
        return await self._insist(lambda: self._store.open_batch(printable(name), SOURCE))

    async def _close_batch(self, place: Place, *, refused: str | None = None) -> None:
        await self._insist(lambda: self._store.close_batch(place.batch_id, refused=refused))

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do what must be done, waiting while the disk is full or the database locked."""
        for delay_s in _delays():
            try:
                result = await step()
            except (OSError, StoreUnavailable) as error:
                why = await self._why(error)
                if self._trouble is None:
                    log.warning("intake.waits", error=why)
                self._trouble = why
            else:
                if self._trouble is not None:
                    log.warning("intake.goes_on")
                self._trouble = None
                return result
            await asyncio.sleep(delay_s)
            with suppress(OSError):  # a folder may be what is missing
                await self._in_thread(self._spool.prepare)
        raise AssertionError("the delays never end")

    async def _why(self, error: OSError | StoreUnavailable) -> str:
        """What everything waits for, as a person reads it: what, where, what to do."""
        if isinstance(error, StoreUnavailable):
            return str(error)
        return await self._in_thread(self._spool.hindrance, error) or told(error)

    async def _in_thread(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step off the event loop. Cancelled, it returns only when the step has ended."""
        task = asyncio.create_task(asyncio.to_thread(step, *args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._work is not None:
                self._work.taken.file.interrupted = True
            await asyncio.wait({task})
            task.exception()  # seen: it was interrupted
            raise


def told(error: OSError) -> str:
    """A failure of the spool's disk in one line."""
    place = error.filename2 or error.filename or "the spool"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free space" if full else "mend the file system, or what is there"
    return f"{printable(str(place))}: {error.strerror or error}: {advice}"


def pause_after(turn_s: float) -> float:
    """How long to leave the database to others after writing for so long; both in seconds.

    Nobody can see who waits. SQLite has waiting writers try again after 1, 2, 5, 10, 15 and 20 ms,
    three times after 25, twice after 50, then every 100: so whoever has waited through the turn
    tries within a pause that is a little longer than the step that it has come to.
    """
    return next(pause_s for upto_s, pause_s in _PAUSES if turn_s <= upto_s)


_PAUSES = ((0.100, 0.030), (0.175, 0.055), (math.inf, 0.105))
_GROWING = "grows while it is read"


def _delays() -> Iterator[float]:
    delay_s = RETRY_BASE_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, RETRY_CAP_S)


def _lines(rejects: Iterable[Reject]) -> bytes:
    lines = bytearray()  # each of orjson's results takes 4 KiB for as long as it is kept
    for reject in rejects:
        line = {"line": reject.line, "reason": reject.reason, "input": reject.input}
        lines += orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    return bytes(lines)
