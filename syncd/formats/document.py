"""JSON: one patch, or an array of them, cut into elements without holding the file."""

import json
import re
from collections.abc import Iterator
from typing import NoReturn

import orjson

from syncd.core.patch import Invalid, Patch, parse
from syncd.formats.chunk import MAX_PIECE, SHOWN_BYTES, Chunk, Draft, Position, Rows, Unreadable
from syncd.formats.stream import Stream, without_bom

_TOO_LONG = Invalid(f"the element is longer than {MAX_PIECE} bytes")


def chunks(stream: Stream, start: Position, rows: Rows) -> Iterator[Chunk]:
    """The chunks of a file that `check` found to be good, from a place reached before."""
    draft = Draft(rows, start.offset)
    scanner = Scanner(stream, start)
    for raw, line, whole in scanner.elements():
        found: Patch | Invalid = parse(raw) if whole else _TOO_LONG
        draft.add(found, line, raw)
        if draft.is_full(scanner.offset):
            yield draft.close(scanner.offset, scanner.line)
    yield draft.close(scanner.offset, scanner.line, last=True)


def check(stream: Stream) -> Iterator[int]:
    """Read the whole file, yielding the offset after each element. Raises Unreadable.

    An element that is JSON but no patch is none of its business.
    """
    scanner = Scanner(stream, Position())
    for raw, line, whole in scanner.elements():
        if whole:
            _check(raw, line)
        yield scanner.offset


class Scanner:
    """Cuts JSON text into elements by its strings and brackets."""

    def __init__(self, stream: Stream, start: Position) -> None:
        self._stream = stream
        self._start = start
        self._text = b""
        self._at = 0  # in the text held
        self._base = 0  # the offset of the text held
        self._lines = 0  # newlines before what is counted
        self._counted = 0  # in the text held

    @property
    def offset(self) -> int:
        """The offset in the file."""
        return self._base + self._at

    @property
    def line(self) -> int:
        """Newlines before the offset."""
        self._lines += self._text.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def elements(self) -> Iterator[tuple[bytes, int, bool]]:
        """Each element's text, the line it begins on, and whether that is all of its text."""
        if self._start.offset == 0:
            self._more()
            text = without_bom(self._text)
            self._at = len(self._text) - len(text)
            first = self._next("the file is empty")
            if first == b"{":
                yield self._element()
                self._end()
                return
            if first != b"[":
                raise Unreadable(
                    f"line {self.line + 1}: neither a JSON object nor an array of them"
                )
            self._at += 1
            if self._next() == b"]":
                self._at += 1
                self._end()
                return
            yield self._element()
        else:
            self._stream.skip_to(self._start.offset)
            self._base = self._start.offset
            self._lines = self._start.line
        while self._peek() == b",":
            self._at += 1
            self._next()
            yield self._element()
        if self._start.offset and self._peek() == b"":
            return  # it was one object, and the whole file was good when it was checked
        if self._next() != b"]":
            raise Unreadable(f"line {self.line + 1}: expected a comma or the end of the array")
        self._at += 1
        self._end()

    def _element(self) -> tuple[bytes, int, bool]:
        line = self.line + 1
        begin = self._at
        if self._text[begin] not in b'{["':
            end = self._find_scalar_end()
            raw = self._text[self._at : end]
            self._at = end
            return raw, line, True
        depth, seen, complete = self._scan(0, begin)
        while not complete:
            if len(self._text) - self._at > MAX_PIECE:
                return self._pass_over(depth, seen), line, False
            seen -= self._at
            self._more_or_truncated()
            depth, seen, complete = self._scan(depth, seen + self._at)
        raw = self._text[self._at : seen]
        self._at = seen
        if len(raw) > MAX_PIECE:
            return raw[: SHOWN_BYTES + 1], line, False
        return raw, line, True

    def _scan(self, depth: int, seen: int) -> tuple[int, int, bool]:
        """Go on from `seen`, `depth` brackets deep, to the end of the value; whether it is there.

        If it is not, the scan stops at the end of the text held, or before a string without end.
        """
        for token in _TOKEN.finditer(self._text, seen):
            kind = token.lastindex
            if kind == _OPEN:
                depth += 1
            elif kind == _CLOSE:
                depth -= 1
            elif kind == _HALF:
                return depth, token.start(), False
            if depth == 0:
                return 0, token.end(), True
        return depth, len(self._text), False

    def _pass_over(self, depth: int, seen: int) -> bytes:
        """Go behind a value that is too long without holding it; only its beginning is returned."""
        head = self._text[self._at : self._at + SHOWN_BYTES + 1]
        complete = False
        while not complete:
            self._at = seen
            if self._text[seen : seen + 1] == b'"':
                self._at += 1
                self._leave_string()
                if depth == 0:
                    return head
            else:
                self._more_or_truncated()
            depth, seen, complete = self._scan(depth, self._at)
        self._at = seen
        return head

    def _leave_string(self) -> None:
        while True:
            match = _IN_STRING.match(self._text, self._at)
            assert match is not None  # it matches nothing, too
            self._at = match.end()
            if self._text[self._at : self._at + 1] == b'"':
                self._at += 1
                return
            self._more_or_truncated()

    def _find_scalar_end(self) -> int:
        while True:
            match = _SCALAR.match(self._text, self._at)
            if match is None:
                raise Unreadable(f"line {self.line + 1}: expected a value")
            if match.end() < len(self._text):
                return match.end()
            if len(match[0]) > MAX_PIECE:
                raise Unreadable(f"line {self.line + 1}: not valid JSON")
            self._more_or_truncated()

    def _peek(self) -> bytes:
        """The next byte that is not whitespace; none at the end."""
        while (match := _NOT_SPACE.search(self._text, self._at)) is None:
            self._at = len(self._text)
            if not self._more():
                return b""
        self._at = match.start()
        return match[0]

    def _next(self, otherwise: str | None = None) -> bytes:
        byte = self._peek()
        if not byte:
            raise Unreadable(otherwise or _TRUNCATED)
        return byte

    def _end(self) -> None:
        if self._peek():
            raise Unreadable(f"line {self.line + 1}: something follows the end of the JSON text")

    def _more_or_truncated(self) -> None:
        if not self._more():
            raise Unreadable(_TRUNCATED)

    def _more(self) -> bool:
        """Drop the text behind, hold the next block."""
        block = self._stream.read()
        _ = self.line  # count what is dropped
        self._text = self._text[self._at :] + block
        self._base += self._at
        self._at = self._counted = 0
        return bool(block)


_TRUNCATED = "the JSON text ends too early: the file is truncated"
_TOKEN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*")|([{\[])|([}\]])|(")', re.DOTALL)
_OPEN, _CLOSE, _HALF = 2, 3, 4
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\[\]{}]+")
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")


def _check(raw: bytes, line: int) -> None:
    """Raise Unreadable if an element is not JSON. What only orjson refuses is left to the patch."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            _grammar.decode(raw.decode(errors="replace"))
        except RecursionError:
            return  # its brackets match, and no patch is that deep
        except ValueError:
            where = line + raw.count(b"\n", 0, error.pos)
            raise Unreadable(f"line {where}: not valid JSON: {error.msg}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_grammar = json.JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)
