"""Rows as they come, for programs or for people; and a word if there are more of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import click

from syncd.cli.printing import count
from syncd.cli.table import Column, table


def first_of(limit: int | None, rows: Iterable[bytes]) -> Iterator[bytes]:
    """So many of the rows at most. Ask for one more: that there is one is told on stderr."""
    for number, row in enumerate(rows):
        if number == limit:
            click.echo(f"syncd: only the first {count(limit)}: --limit shows more", err=True)
            return
        yield row


def show(
    rows: Iterator[bytes],
    columns: Sequence[Column],
    cells: Callable[[bytes], Sequence[object]],
    *,
    as_json: bool,
    none: str,
) -> None:
    """Print rows, each the text of a JSON object. `none` is said to people if there are none."""
    if as_json:
        for row in rows:
            click.echo(row)
        return
    first = next(rows, None)
    if first is None:
        click.echo(none)
        return
    for line in table(columns, map(cells, chain([first], rows)), _say_what_is_lost):
        click.echo(line)


def _say_what_is_lost() -> None:
    click.echo("syncd: cut to fit this terminal: --json shows all of it", err=True)
