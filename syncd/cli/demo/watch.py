"""The demo's progress: a bar on a terminal, a line a second elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from syncd.cli.printing import count, many
from syncd.errors import SyncdError

LOOK_EVERY_S = 0.1
TELL_EVERY_S = 1.0
STANDSTILL_S = 60.0


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """How far the demo is."""

    settled: int
    """Delivered, or given up."""
    deferred: int
    requests: int
    failures: int
    """Requests that were made to fail."""

    def __str__(self) -> str:
        deferred = f", {count(self.deferred)} deferred" if self.deferred else ""
        return f"{many(self.requests, 'request')}, {count(self.failures)} failed{deferred}"


def watch(total: int, look: Callable[[], DemoFigures]) -> None:
    """Show progress until everything is settled. Raises SyncdError if nothing moves any more."""
    if sys.stdout.isatty():
        _with_bar(total, look)
        return
    told_at = time.monotonic()
    for figures in _looks(total, look):
        if figures.settled == total or time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            click.echo(f"  {count(figures.settled)} of {count(total)} delivered; {figures}")
            sys.stdout.flush()


def _with_bar(total: int, look: Callable[[], DemoFigures]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn(" "),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(highlight=False)) as bar:
        task = bar.add_task("", total=total)
        for figures in _looks(total, look):
            bar.update(task, completed=figures.settled, description=str(figures))


def _looks(total: int, look: Callable[[], DemoFigures]) -> Iterator[DemoFigures]:
    """Figures until all is settled, the last of them included."""
    moved_at, before = time.monotonic(), None
    while True:
        figures = look()
        yield figures
        if figures.settled >= total:
            return
        if figures != before:
            moved_at, before = time.monotonic(), figures
        elif time.monotonic() - moved_at > STANDSTILL_S:
            raise SyncdError(f"nothing has moved for {STANDSTILL_S:g} s: {figures}")
        time.sleep(LOOK_EVERY_S)
