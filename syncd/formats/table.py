"""CSV: a header that says what the cells set, one patch a record."""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import orjson

from syncd.core.patch import MAX_PRIORITY, Invalid, Patch, fit, nearest, quoted
from syncd.formats.chunk import MAX_PIECE, SHOWN_BYTES, Chunk, Draft, Position, Rows, Unreadable
from syncd.formats.lines import TooLong, Unended, lines
from syncd.formats.stream import Stream, without_bom

csv.field_size_limit(MAX_PIECE)  # the module's own, 128 KiB, would end a record in its middle

_TEXT, _JSON = "metadata.", "metadata:json."
_PLAIN = ("workflow_run_id", "name", "idempotency_key", "priority")
_KNOWN = (*_PLAIN, f"{_TEXT}KEY", f"{_JSON}KEY")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def chunks(stream: Stream, start: Position, rows: Rows, *, closed: bool) -> Iterator[Chunk]:
    """The chunks of the file from a place reached before.

    Unless the file is known to be `closed` by its writer, a last record without a newline is
    rejected: a number or a name may be cut short without looking so.
    """
    records = _Records(stream, Position())
    columns = _columns(records)
    if start.offset:
        stream.skip_to(start.offset)
        records = _Records(stream, start)
    draft = Draft(rows, records.end.offset)
    while (cells := records.next()) is not None:
        found = cells if isinstance(cells, Invalid) else columns.patch(cells)
        if found is not None and records.unended and not closed:
            found = Invalid("the file may be cut short: its last line has no end")
        if found is not None:
            draft.add(found, records.first_line, records.raw)
        if draft.is_full(records.end.offset):
            yield draft.close(records.end.offset, records.end.line)
    yield draft.close(records.end.offset, records.end.line, last=True)


@dataclass(frozen=True, slots=True)
class Columns:
    """What the cells of a record set."""

    count: int
    plain: Callable[[list[str]], tuple[str, ...]]
    """The cells of _PLAIN, of a record with an empty cell after its last one, for what has none."""
    metadata: list[tuple[int, str, bool]]
    """Index of the cell, its key, whether it is JSON."""

    def patch(self, cells: list[str]) -> Patch | Invalid | None:
        """The patch in a record; None for a blank line."""
        if not cells:
            return None
        if len(cells) != self.count:
            return Invalid(f"{len(cells)} cells where the header has {self.count}")
        members: dict[str, str | orjson.Fragment] = {}
        for index, key, is_json in self.metadata:
            cell = cells[index]
            if not cell:
                continue
            if is_json and not _is_json(cell):
                return Invalid(f"metadata:json: the value of {_as_json(key)} is not valid JSON")
            members[key] = orjson.Fragment(cell) if is_json else cell
        run_id, name, key, priority = self.plain([*cells, ""])
        return fit(
            Patch(
                run_id,
                name or None,
                _as_json(members) if members else None,
                key or None,
                _priority(priority) if priority else 0,
            )
        )


def _priority(cell: str) -> int:
    return int(cell) if _INTEGER.fullmatch(cell) else MAX_PRIORITY + 1


def _is_json(cell: str) -> bool:
    # Each alone: two cells that are no values could make two members of one object together.
    try:
        orjson.loads(cell)
    except orjson.JSONDecodeError:
        return False
    return True


def _as_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _columns(records: "_Records") -> Columns:
    header = records.next()
    if header is None:
        raise Unreadable("the file is empty: its first line must name the columns")
    if isinstance(header, Invalid):
        raise Unreadable(f"the header cannot be read: {header.reason}")
    plain: dict[str, int] = {}
    metadata: list[tuple[int, str, bool]] = []
    keys: set[str] = set()
    for index, title in enumerate(header):
        prefix = next((p for p in (_TEXT, _JSON) if title.startswith(p) and title != p), None)
        if prefix is not None:
            key = title.removeprefix(prefix)
            if key in keys:
                raise Unreadable(f"metadata key {quoted(key)} has two columns")
            keys.add(key)
            metadata.append((index, key, prefix == _JSON))
        elif title not in _PLAIN:
            raise Unreadable(_unknown(title))
        elif title in plain:
            raise Unreadable(f"column {quoted(title)} is there twice")
        else:
            plain[title] = index
    if "workflow_run_id" not in plain:
        raise Unreadable(
            'there is no column "workflow_run_id": the first line must name the columns: known are '
            + ", ".join(_KNOWN)
        )
    count = len(header)
    return Columns(count, itemgetter(*(plain.get(field, count) for field in _PLAIN)), metadata)


def _unknown(title: str) -> str:
    separator = next((mark for mark in ";\t|" if mark in title), None)
    if separator is not None and title.startswith("workflow_run_id"):
        return f"the columns are separated by {quoted(separator)}: save it with commas"
    return f"unknown column {quoted(title)}: {nearest(title, _KNOWN)}"


class _Broken(ValueError):
    """A line that csv shall not see."""


class _Records:
    """Records as lists of cells, and the bytes that each of them took."""

    def __init__(self, stream: Stream, start: Position) -> None:
        self._lines = lines(stream)
        self._reader = csv.reader(self, strict=True)
        self.end = start
        self.first_line = start.line
        self.raw = b""
        """The beginning of the record's text."""
        self.unended = False
        self._size = self._quotes = 0
        self._exhausted = False

    def next(self) -> list[str] | Invalid | None:
        """The next record, or what is wrong with it; None at the end of the file.

        After a record that cannot be read, reading goes on after the line that its quotes close on,
        so that the inside of a cell is never taken for records.
        """
        self.first_line = self.end.line + 1
        self.raw, self._size, self._quotes = b"", 0, 0
        try:
            return next(self._reader, None)
        except _Broken as broken:
            while self._quotes % 2 and self._take() is not None:
                pass
            return Invalid(str(broken))
        except csv.Error as error:
            if self._exhausted:
                return Invalid("a quoted cell is never closed: the file may be cut short")
            if "new-line" in str(error):
                return Invalid("a carriage return inside a line: end lines with LF or CRLF")
            return Invalid(f"not valid CSV: {error}")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line for csv."""
        raw = self._take()
        if raw is None:
            raise StopIteration
        if self._size > MAX_PIECE:
            raise _Broken(f"the record is longer than {MAX_PIECE} bytes")
        if b"\0" in raw:
            raise _Broken("the line contains NUL")
        try:
            return raw.decode() + "\n"
        except UnicodeDecodeError as error:
            raise _Broken(f"not valid UTF-8 at byte {error.start + 1} of the line") from None

    def _take(self) -> bytes | None:
        taken = next(self._lines, None)
        if taken is None:
            self._exhausted = True
            return None
        raw, offset, flaw = taken
        self._size += offset - self.end.offset
        if self.end.line == 0:
            raw = without_bom(raw)
        self.end = Position(offset, self.end.line + 1)
        self.unended = isinstance(flaw, Unended)
        self._quotes += flaw.quotes if isinstance(flaw, TooLong) else raw.count(b'"')
        if len(self.raw) <= SHOWN_BYTES:
            self.raw = self.raw + b"\n" + raw if self.raw else raw
        return raw
