"""Text for people: tables, spans of time, and values that cannot steer the terminal."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

CELL = 44  # characters of one cell on a terminal; elsewhere nothing is cut
GAP = "  "


def plain(value: object) -> str:
    """A value from outside on one line: control characters appear as escapes."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = ""
) -> Iterator[str]:
    """Aligned lines, header first. `right` names the columns of numbers, separated by spaces."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    # Only the end of a line may be long: it is cut where the terminal ends.
    cells = [
        [*header],
        *([*(_cell(value, terminal) for value in row[:-1]), plain(row[-1])] for row in rows),
    ]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    to_right = [name in right.split() for name in header]
    for row in cells:
        line = GAP.join(
            _padded(cell, size, at_right)
            for cell, size, at_right in zip(row, widths, to_right, strict=True)
        ).rstrip()
        yield _cut(line, width) if terminal else line


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def many(number: int, noun: str, plural: str = "") -> str:
    """`1 patch`, `2 patches`."""
    if number == 1:
        return f"1 {noun}"
    return f"{count(number)} {plural or noun + ('es' if noun.endswith('h') else 's')}"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def seconds_since(instant: str | None, now: float) -> float | None:
    """How long ago an instant of our JSON was; negative if it is to come."""
    return None if instant is None else now - datetime.fromisoformat(instant).timestamp()


def ago(instant: str | None, now: float) -> str:
    """`3 min ago`, `in 12 s`, or nothing."""
    seconds = seconds_since(instant, now)
    if seconds is None:
        return ""
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def clock(now: float) -> str:
    """An instant for people who compare it with a log: UTC, to the second."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _cell(value: object, terminal: bool) -> str:
    text = plain(value)
    return _cut(text, CELL) if terminal else text


def _padded(text: str, size: int, at_right: bool) -> str:
    padding = " " * (size - _width(text))
    return padding + text if at_right else text + padding


def _cut(text: str, size: int) -> str:
    if _width(text) <= size:
        return text
    while _width(text) >= size:
        text = text[:-1]
    return text + "…"


def _width(text: str) -> int:
    """Columns on a terminal: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
