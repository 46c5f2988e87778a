"""A stream cut into lines of bounded length."""

from collections.abc import Iterator
from dataclasses import dataclass

from syncd.formats.chunk import MAX_PIECE, SHOWN_BYTES
from syncd.formats.stream import Stream


@dataclass(frozen=True, slots=True)
class TooLong:
    """Only the beginning of the line is there."""

    quotes: int
    """Quotation marks in the whole line: they say whether a cell of CSV is open after it."""


@dataclass(frozen=True, slots=True)
class Unended:
    """The last line, without a newline."""


Line = tuple[bytes, int, TooLong | Unended | None]
"""The line without its newline, the offset after it, and what is wrong with it."""

_UNENDED = Unended()


def lines(stream: Stream) -> Iterator[Line]:
    """The lines from where the stream is."""
    end = stream.offset
    rest = b""
    block = stream.read()
    while block:
        pieces = (rest + block).split(b"\n")
        rest = pieces.pop()
        for raw in pieces:
            end += len(raw) + 1
            yield (raw, end, None) if len(raw) <= MAX_PIECE else _cut(raw, end)
        block = b""
        if len(rest) > MAX_PIECE:
            line, block = _skip(stream, rest, end)
            yield line
            rest, end = b"", line[1]
        block = block or stream.read()
    if rest:
        end += len(rest)
        yield (rest, end, _UNENDED) if len(rest) <= MAX_PIECE else _cut(rest, end)


def _cut(raw: bytes, end: int) -> Line:
    return raw[: SHOWN_BYTES + 1], end, TooLong(raw.count(b'"'))


def _skip(stream: Stream, begun: bytes, end: int) -> tuple[Line, bytes]:
    """Read on to the end of a line that is too long; also the beginning of the next one."""
    quotes = begun.count(b'"')
    end += len(begun)
    while block := stream.read():
        newline = block.find(b"\n")
        if newline >= 0:
            quotes += block.count(b'"', 0, newline)
            end += newline + 1
            return (begun[: SHOWN_BYTES + 1], end, TooLong(quotes)), block[newline + 1 :]
        quotes += block.count(b'"')
        end += len(block)
    return (begun[: SHOWN_BYTES + 1], end, TooLong(quotes)), b""
