"""Where `enqueue` puts patches: before the daemon, else into the file, as any producer does."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from syncd.cli.door import Door, must_be_there, opened
from syncd.cli.wire import PATIENT_S, Down
from syncd.core.patch import Patch, compact
from syncd.formats import Chunk, Reject

T = TypeVar("T")

PART_PATCHES = 500
PART_BYTES = 512 << 10
HASTY_S = 1.0  # a request that was sent is done by a daemon that hangs, when it goes on
PAUSE_S = 0.010  # between transactions on the file; else other producers never get their turn


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of patches that were handed in. Those with a known key are duplicates."""

    accepted: int = 0
    duplicates: int = 0
    first_id: int | None = None
    last_id: int | None = None

    def __add__(self, later: "Taken") -> "Taken":
        return Taken(
            self.accepted + later.accepted,
            self.duplicates + later.duplicates,
            self.first_id or later.first_id,
            later.last_id or self.last_id,
        )


@contextmanager
def outbox(to: Door) -> "Iterator[ByDaemon | ByFile]":
    """The daemon if it is up, else the database itself, made if there is none."""
    if to.wire.answers():
        with ExitStack() as stack:
            yield ByDaemon(to, stack)
        return
    from syncd.store.schema import open_writer

    must_be_there(to.paths.store)
    with opened(open_writer, to.paths.store) as db:
        yield ByFile(db)


@dataclass(slots=True)
class Part:
    """What of a file goes in one request, or one transaction, and what is rejected among it."""

    patches: list[Patch] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    pieces: int = 0
    line: int = 0
    """Lines of the file up to its end."""


def parts(chunks: Iterable[Chunk]) -> Iterator[Part]:
    """A file's parts out of its pieces, each a chunk of its own: so each part's end is known."""
    part, size = Part(), 0
    for chunk in chunks:
        more = sum(len(line(patch)) for patch in chunk.patches)
        if part.patches and size + more > PART_BYTES:
            yield part
            part, size = Part(), 0
        part.patches += chunk.patches
        part.rejects += chunk.rejects
        part.pieces += len(chunk.patches) + len(chunk.rejects)
        part.line = chunk.end.line
        size += more
        if part.pieces == PART_PATCHES:
            yield part
            part, size = Part(), 0
    if part.pieces or part.line:
        yield part


def line(patch: Patch) -> bytes:
    """A patch as one line of JSON, its metadata as written but for whitespace between values."""
    fields: dict[str, object] = {"workflow_run_id": patch.workflow_run_id}
    if patch.name is not None:
        fields["name"] = patch.name
    if patch.metadata is not None:
        text = patch.metadata.encode()
        if b"\n" in text or b"\r" in text:
            text = compact(text)
        fields["metadata"] = orjson.Fragment(text)
    if patch.idempotency_key is not None:
        fields["idempotency_key"] = patch.idempotency_key
    if patch.priority:
        fields["priority"] = patch.priority
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class ByDaemon:
    """Hands patches to the running daemon. What `accept` has returned for is durable."""

    to: Door
    stack: ExitStack

    def open_batch(self, name: str) -> int:
        """A new batch, which the daemon closes when this process is gone."""
        line = orjson.dumps({"name": name}, option=orjson.OPT_APPEND_NEWLINE)
        answer = self.stack.enter_context(self.to.kept_open("/batches", line))
        return int(self._there(answer)["batch_id"])

    def accept(self, patches: Sequence[Patch], batch_id: int | None = None) -> Taken:
        """The patches of one part, in one transaction."""
        target = "/enqueue" if batch_id is None else f"/enqueue?batch_id={batch_id}"
        return Taken(**self._tell(target, b"".join(map(line, patches))))

    def close_batch(self, batch_id: int, rejected: int) -> None:
        """The whole file was handed in, but for so many of its lines."""
        self._close(batch_id, {"rejected": rejected}, PATIENT_S)

    def leave_batch(self, batch_id: int, rejected: int, why: str) -> Taken:
        """The rest of the file will not come. What is in; nobody waits long for the answer."""
        return Taken(**self._close(batch_id, {"rejected": rejected, "refused": why}, HASTY_S))

    def _close(self, batch_id: int, how: dict[str, object], wait_s: float) -> dict[str, Any]:
        return self._tell(f"/batches/{batch_id}/close", orjson.dumps(how), wait_s)

    def _tell(self, target: str, body: bytes, wait_s: float = PATIENT_S) -> dict[str, Any]:
        return self._there(self.to.tell(target, body, wait_s=wait_s))

    def _there(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        if answer is None:
            raise Down(f"{self.to.paths.socket}: the daemon has stopped", "try again")
        return answer


@dataclass(frozen=True, slots=True)
class ByFile:
    """Writes patches into the database, while no daemon can be asked to."""

    db: sqlite3.Connection

    def open_batch(self, name: str) -> int:
        """A new batch. A daemon that starts closes it when nothing comes to it any more."""
        from syncd.store import accept

        return self._atomic(lambda db: accept.open_batch(db, name, "enqueue", time.time()).batch_id)

    def accept(self, patches: Sequence[Patch], batch_id: int | None = None) -> Taken:
        """The patches of one part, in one transaction."""
        from syncd.store import accept

        place = None if batch_id is None else accept.Place(batch_id)
        taken = self._atomic(lambda db: accept.accept(db, patches, place, time.time()))
        return Taken(taken.accepted, taken.duplicates, taken.first_id, taken.last_id)

    def close_batch(self, batch_id: int, rejected: int) -> None:
        """The whole file was handed in, but for so many of its lines."""
        from syncd.store import accept

        self._atomic(lambda db: accept.close_batch(db, batch_id, time.time(), rejected))

    def leave_batch(self, batch_id: int, rejected: int, why: str) -> Taken:
        """The rest of the file will not come. What is in."""
        from syncd.store import accept

        taken = self._atomic(
            lambda db: accept.close_batch(db, batch_id, time.time(), rejected, why)
        )
        return Taken(taken.accepted, taken.duplicates, taken.first_id, taken.last_id)

    def _atomic(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = work(self.db)
            self.db.execute("COMMIT")
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        time.sleep(PAUSE_S)
        return result
