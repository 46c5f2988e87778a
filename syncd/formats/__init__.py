"""From the bytes of a file to patches, and to reasons for what is none, in bounded memory."""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from syncd.formats import document, jsonl, table
from syncd.formats.chunk import Chunk, Position, Reject, Rows, Unreadable
from syncd.formats.stream import Stream

__all__ = [
    "Chunk",
    "Format",
    "Kind",
    "Position",
    "Reject",
    "Unreadable",
    "chunks",
    "format_of",
    "read",
    "verify",
    "verifying",
]

START = Position()
NO_LIMIT = sys.maxsize
STEP_BYTES = 1 << 20


class Kind(StrEnum):
    """The shapes that a file of patches may have."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Format:
    """How to read a file."""

    kind: Kind
    gz: bool = False

    @property
    def needs_verifying(self) -> bool:
        """Whether the file must be read whole before its first patch may be taken."""
        return self.gz or self.kind is Kind.JSON


_SUFFIXES = {".json": Kind.JSON, ".jsonl": Kind.JSONL, ".ndjson": Kind.JSONL, ".csv": Kind.CSV}


def format_of(name: str) -> Format | None:
    """What a file's name says about its format."""
    lowered = name.lower()
    plain = lowered.removesuffix(".gz")
    for suffix, kind in _SUFFIXES.items():
        if plain.endswith(suffix):
            return Format(kind, gz=plain != lowered)
    return None


def chunks(
    file: BinaryIO,
    kind: Format,
    *,
    start: Position = START,
    rows: Rows = 1000,
    closed: bool = True,
    limit: int = NO_LIMIT,
) -> Iterator[Chunk]:
    """Read a file from a place that was reached before; at least one chunk, the last one marked.

    `closed` says that the writer is known to have finished; `limit` bounds the decompressed size in
    bytes. A file whose format needs it must have been verified. Raises Unreadable.
    """
    stream = Stream(file, gz=kind.gz, limit=limit)
    match kind.kind:
        case Kind.JSONL:
            return jsonl.chunks(stream, start, rows)
        case Kind.JSON:
            return document.chunks(stream, start, rows)
        case Kind.CSV:
            return table.chunks(stream, start, rows, closed=closed)


def verifying(file: BinaryIO, kind: Format, *, limit: int = NO_LIMIT) -> Iterator[int]:
    """Read a file whole, yielding the offset reached about every MiB. Raises Unreadable."""
    stream = Stream(file, gz=kind.gz, limit=limit)
    yielded = 0
    for offset in document.check(stream) if kind.kind is Kind.JSON else _through(stream):
        if offset - yielded >= STEP_BYTES:
            yielded = offset
            yield offset


def verify(file: BinaryIO, kind: Format, *, limit: int = NO_LIMIT) -> str | None:
    """Why no patch of the file may be taken, or None."""
    try:
        for _ in verifying(file, kind, limit=limit):
            pass
    except Unreadable as unreadable:
        return str(unreadable)
    return None


def read(
    file: BinaryIO, kind: Format, *, rows: int = 1000, limit: int = NO_LIMIT
) -> Iterator[Chunk]:
    """Read a file or a pipe in one go: verified first where its format needs it. Raises Unreadable.

    What comes through a pipe and needs verifying is kept in a temporary file meanwhile.
    """
    if not kind.needs_verifying:
        yield from chunks(file, kind, rows=rows, limit=limit)
        return
    with tempfile.TemporaryFile() as copy:
        if not file.seekable():
            _copy(file, copy, limit)
            file = copy
        for _ in verifying(file, kind, limit=limit):
            pass
        yield from chunks(file, kind, rows=rows, limit=limit)


def _copy(pipe: BinaryIO, copy: BinaryIO, limit: int) -> None:
    while block := pipe.read(STEP_BYTES):
        copy.write(block)
        if copy.tell() > limit:
            raise Unreadable(f"more than {limit} bytes came through the pipe")


def _through(stream: Stream) -> Iterator[int]:
    while stream.read():
        yield stream.offset
