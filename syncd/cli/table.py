"""Tables for people: aligned, as wide as the terminal at most, printed as the rows come."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from syncd.cli.printing import plain

GAP = "  "
BLOCK = 200  # rows that are looked at together, to know how wide a column is


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is shown.

    What is not on a terminal is shown whole: who pipes it on wants the values.
    """

    title: str
    right: bool = False
    least: int | None = None
    """Longer values are shortened down to this before the line is too long. None: never, for what
    is copied into the next command; the line is rather broken."""
    late: bool = False
    """Shortened only where leaving columns out is not enough: a name that the next command wants,
    but that may be as long as a file's."""
    spare: int = 0
    """Columns with a number here are left out where it is too narrow for all, 1 first."""
    rare: bool = False
    """Left out where the first rows have nothing in it."""


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    lost: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Header and rows, line by line. Nothing but the rows of one block is kept.

    At the end `lost` is called if something of them was not shown.
    """
    cells = ([plain(value) for value in row] for row in rows)
    first = list(islice(cells, BLOCK))
    kept = [i for i, column in enumerate(columns) if not column.rare or _says(first, i)]
    columns = [columns[i] for i in kept]
    block = [[row[i] for i in kept] for row in first]
    titles = [len(column.title) for column in columns]
    terminal = sys.stdout.isatty()
    if terminal:
        widths = _on_terminal(columns, titles, block, shutil.get_terminal_size().columns)
    else:
        widths = _widths(titles, block)
    whole = True
    yield _line(columns, [column.title for column in columns], widths)
    while block:
        if not terminal:
            widths = _widths(widths, block)
        for row in block:
            whole = whole and _fits(columns, row, widths)
            yield _line(columns, row, widths)
        block = [[row[i] for i in kept] for row in islice(cells, BLOCK)]
    if not whole:
        lost()


def fitted(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[int]:
    """Widths that fit into the room, 0 for a column left out.

    The widest is shortened first. If that is not enough, columns that can be spared go, then those
    are shortened that were to stay whole. Where even that is not enough the line is broken.
    """
    spare = sorted((c.spare, i) for i, c in enumerate(columns) if c.spare)
    kept = list(widths)
    while True:
        narrow = _narrowed(columns, kept, room)
        if _total(narrow) <= room:
            return narrow
        if not spare:
            return _narrowed(columns, narrow, room, late=True)
        kept[spare.pop(0)[1]] = 0


def _on_terminal(
    columns: Sequence[Column], titles: list[int], rows: Sequence[Sequence[str]], room: int
) -> list[int]:
    """Widths by the rows that fit on a line: what is too long for that breaks its own line only."""

    def fit(rows: Sequence[Sequence[str]]) -> list[int]:
        return fitted(columns, _widths(titles, rows), room)

    widths = fit(rows)
    if _total(widths) <= room:
        return widths
    if short := [row for row in rows if _total(fit([row])) <= room]:
        return fit(short)
    shortest = fit([min(rows, key=lambda row: _total(fit([row])))])
    # As no line fits, none is shortened below the least that its column may have.
    return [
        size if not size or column.least is None else max(size, least)
        for column, size, least in zip(columns, shortest, widths, strict=True)
    ]


def _narrowed(
    columns: Sequence[Column], widths: Sequence[int], room: int, *, late: bool = False
) -> list[int]:
    least = [
        width if column.least is None or (column.late and not late) else min(width, column.least)
        for column, width in zip(columns, widths, strict=True)
    ]
    narrow = [min(width, max(room, low)) for width, low in zip(widths, least, strict=True)]
    while _total(narrow) > room:
        slack = [
            (width, i)
            for i, (low, width) in enumerate(zip(least, narrow, strict=True))
            if width > low
        ]
        if not slack:
            break
        narrow[max(slack)[1]] -= 1
    return narrow


def cut(line: str) -> str:
    """A line, cut where the terminal ends if there is one."""
    return shortened(line, shutil.get_terminal_size().columns) if sys.stdout.isatty() else line


def shortened(text: str, size: int) -> str:
    """The text in so many columns of a terminal, with an ellipsis for what is missing."""
    if width(text) <= size:
        return text
    begin = ""
    for sign in text:
        if width(begin + sign) + 1 > size:
            break
        begin += sign
    return f"{begin}…"


def width(text: str) -> int:
    """Columns on a terminal: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _fits(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> bool:
    return all(
        not value or (size and (column.least is None or width(value) <= size))
        for column, value, size in zip(columns, row, widths, strict=True)
    )


def _says(rows: Sequence[Sequence[str]], i: int) -> bool:
    return any(row[i] not in ("", "0") for row in rows)


def _widths(widths: Sequence[int], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(widths[i], *(width(row[i]) for row in rows)) for i in range(len(widths))]


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + len(GAP) * (len(shown) - 1)


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for column, value, size in zip(columns, row, widths, strict=True):
        if not size:
            continue
        keep = column.least is None
        text = value if keep else shortened(value, size)
        padding = " " * (size - width(text))
        cells.append(padding + text if column.right else text + padding)
    return GAP.join(cells).rstrip()
