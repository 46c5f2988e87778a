"""What reading a file yields: chunks of patches and rejected pieces, and the place after them."""

from collections.abc import Callable
from dataclasses import dataclass

from syncd.core.patch import Invalid, Patch
from syncd.errors import SyncdError

MAX_PIECE = 1 << 20  # bytes; a longer line, element or record is rejected without being held
CHUNK_BYTES = 4 << 20  # a chunk ends with the piece that reaches this, however few rows it has
SHOWN_BYTES = 4096  # of a rejected piece


class Unreadable(SyncdError):
    """The file as a whole cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two pieces of a file, in its decompressed bytes, and the lines before it."""

    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """A piece of a file that is not a patch."""

    line: int
    """The line it begins on, from 1."""
    reason: str
    input: str
    """Its first bytes; those that are not UTF-8 appear as \\xNN."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive pieces of a file."""

    patches: list[Patch]
    rejects: list[Reject]
    end: Position
    """Where reading goes on after them."""
    last: bool
    """The file ends here."""


Rows = int | Callable[[], int]
"""How many rows a chunk has at most, or who to ask before each chunk."""


class Draft:
    """A chunk in the making."""

    def __init__(self, rows: Rows, begin: int) -> None:
        self._next_rows = rows if callable(rows) else lambda: rows
        self._rows = self._next_rows()
        self._begin = begin
        self._patches: list[Patch] = []
        self._rejects: list[Reject] = []

    def add(self, found: Patch | Invalid, line: int, raw: bytes) -> None:
        """Put in what `raw`, which begins on `line`, turned out to be."""
        if isinstance(found, Patch):
            self._patches.append(found)
        else:
            self._rejects.append(Reject(line, found.reason, shown(raw)))

    def is_full(self, offset: int) -> bool:
        """Whether the chunk should end at `offset`."""
        rows = len(self._patches) + len(self._rejects)
        return rows >= self._rows or offset - self._begin >= CHUNK_BYTES

    def close(self, offset: int, line: int, *, last: bool = False) -> Chunk:
        """The chunk; the draft begins anew after it."""
        chunk = Chunk(self._patches, self._rejects, Position(offset, line), last)
        self._begin, self._patches, self._rejects = offset, [], []
        self._rows = self._next_rows()
        return chunk


def shown(raw: bytes) -> str:
    """The beginning of a piece of input, for a person to recognise it by."""
    head = raw[:SHOWN_BYTES]
    if len(raw) > SHOWN_BYTES:
        while head and raw[len(head)] & 0xC0 == 0x80:  # do not cut a character in two
            head = head[:-1]
        return head.decode(errors="backslashreplace") + "…"
    return head.decode(errors="backslashreplace")
