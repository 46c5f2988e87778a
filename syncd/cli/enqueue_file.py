"""`syncd enqueue --file`: a file or a pipe into the outbox, part by part, with its progress."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import click

from syncd.cli.door import Door
from syncd.cli.outbox import ByDaemon, ByFile, Part, outbox, parts
from syncd.cli.printing import many, plain
from syncd.cli.signals import Stopped, heeding, ignore
from syncd.cli.tally import Tally, in_json, in_words, so_far, to_name, unnamed
from syncd.cli.wire import Down, Mute, WentAway
from syncd.errors import SyncdError
from syncd.formats import Chunk, Format, Kind, format_of, read

_GZIP = b"\x1f\x8b"
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Course:
    """Where the file is, for whoever ends it."""

    tally: Tally
    named: int = 0
    """Rejected lines that were shown."""


def enqueue_file(to: Door, path: str, format_name: str | None, *, as_json: bool) -> int:
    """Hand in a file's patches in order. Returns 1 if any of its lines was rejected."""
    course = Course(Tally("stdin" if path == "-" else plain(Path(path).name)))
    try:
        with heeding(*_ENDING), _file(path) as file:
            with _reading():
                kind = _format(path, format_name, file)
            course.tally = replace(course.tally, kind=kind.kind)
            chunks = _read(file, kind, to.config.spool.max_file_bytes)
            with outbox(to) as box, _progress(file) as progress:

                def show() -> None:
                    progress(course.tally)
                    if not as_json:
                        _name_rejects(course)

                _hand_in(to, box, parts(chunks), course, show)
    except (SyncdError, Stopped) as error:
        tally = replace(course.tally, why=_why(error))
        if as_json:
            click.echo(in_json(tally))
        else:
            _name_rejects(course)
            _count_the_others(tally)
        what = "stopped" if isinstance(error, Stopped) else tally.why
        where = tally.name if path == "-" else plain(path)
        told = f"{where}: {what} ({so_far(tally)})"
        if isinstance(error, SyncdError):
            raise SyncdError(told) from error
        click.echo(f"syncd: {told}", err=True)
        return error.exit_code
    tally = course.tally
    if not as_json:
        _count_the_others(tally)
    click.echo(in_json(tally) if as_json else in_words(tally))
    return 1 if tally.rejected else 0


def _hand_in(
    to: Door,
    box: ByDaemon | ByFile,
    parts: Iterator[Part],
    course: Course,
    show: Callable[[], None],
) -> None:
    """Part by part into the outbox. Nobody waits for a file that broke off."""
    batch_id: int | None = None
    try:
        for part in parts:
            if part.patches:
                if batch_id is None:
                    batch_id = box.open_batch(course.tally.name)
                course.tally = course.tally.sends(part)
                course.tally = course.tally.accepts(box.accept(part.patches, batch_id))
            else:
                course.tally = course.tally.passes(part)
            show()
        if batch_id is not None:
            _close(to, box, batch_id, course.tally)
    except BaseException as error:
        if batch_id is not None:
            course.tally = _left(to, box, batch_id, course.tally, error)
        raise
    ignore(*_ENDING)  # too late: all of it is in


def _close(to: Door, box: ByDaemon | ByFile, batch_id: int, tally: Tally) -> None:
    """The whole file was handed in, whoever can be told so."""
    try:
        box.close_batch(batch_id, tally.rejected)
    except WentAway as error:
        if isinstance(error, Mute):
            raise
        with outbox(to) as another:
            another.close_batch(batch_id, tally.rejected)


def _left(
    to: Door, box: ByDaemon | ByFile, batch_id: int, tally: Tally, error: BaseException
) -> Tally:
    """The rest of the file will not come. How much of it is in tells who closes its batch.

    A daemon that is gone does not write any more, unless it still has its lock: the next one, or
    this command, closes the batch for it. One that is there may yet do what nobody waited for.
    """
    from syncd.store.errors import SQLITE_ERRORS
    from syncd.store.lock import is_in_use

    done, hangs = isinstance(box, ByFile) or not isinstance(error, Mute | Stopped), False
    try:
        return _leave(box, batch_id, tally, error, final=done)
    except Mute:
        hangs = True
    except (SyncdError, *SQLITE_ERRORS):
        pass
    if not isinstance(error, WentAway | Stopped) or isinstance(error, Down):
        tally = tally.refused()  # or never asked for
    if hangs or isinstance(box, ByFile):
        return tally
    with suppress(SyncdError):
        gone = not is_in_use(to.paths.store)
        with outbox(to) as another:
            final = gone and isinstance(another, ByFile)
            tally = _leave(another, batch_id, tally, error, final=final)
    return tally


def _leave(
    box: ByDaemon | ByFile, batch_id: int, tally: Tally, error: BaseException, *, final: bool
) -> Tally:
    """What is in is known once the batch is closed, and only then what of it was rejected."""
    from syncd.store.errors import SQLITE_ERRORS

    found = tally.finds(box.leave_batch(batch_id, tally.rejected, _why(error)), final=final)
    if found.rejected > tally.rejected:
        with suppress(SyncdError, *SQLITE_ERRORS):  # only a count is short then
            box.leave_batch(batch_id, found.rejected, _why(error))
    return found


def _why(error: BaseException) -> str:
    """Why the rest does not come, for whoever waits for the batch."""
    from syncd.store.accept import CUT_OFF, INTERRUPTED

    match error:
        case WentAway():
            return error.what
        case SyncdError():
            return str(error)
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return CUT_OFF


def _format(path: str, format_name: str | None, file: BinaryIO) -> Format:
    if format_name is not None:
        peek = getattr(file, "peek", None)
        return Format(Kind(format_name), gz=peek is not None and peek(2)[:2] == _GZIP)
    found = format_of(path)
    if found is None:
        raise click.UsageError(f"--file {plain(path)}: say --format: the name does not tell")
    return found


def _read(file: BinaryIO, kind: Format, limit: int) -> Iterator[Chunk]:
    with _reading():
        yield from read(file, kind, rows=1, limit=limit)


@contextmanager
def _reading() -> Iterator[None]:
    """What keeps the file from being read is told in one line."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:  # no fault of the file's: it is copied if it is compressed
            raise
        raise SyncdError(f"cannot be read: {error.strerror or error}: hand in a copy") from error


@contextmanager
def _file(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdin is None:  # though its number leads nowhere by now: nobody meant an empty file
            raise SyncdError("is closed: pipe the patches in, or name their file")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below; only opening it is to be explained
    except OSError as error:
        raise SyncdError(f"cannot be opened: {error.strerror}") from error
    with file:
        yield file


class Progress(Protocol):
    """Shows a tally."""

    def __call__(self, tally: Tally) -> None: ...


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda tally: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    total = os.fstat(file.fileno()).st_size if file.seekable() else None
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total or None)

        def show(tally: Tally) -> None:
            done = file.tell() if file.seekable() else 0
            text = f"{many(tally.taken.accepted, 'patch')} accepted"
            bar.update(task, completed=done, description=text)

        yield show


def _name_rejects(course: Course) -> None:
    for reject in to_name(course.tally, course.named):
        click.echo(f"{course.tally.name}:{reject.line}: {plain(reject.reason)}", err=True)
        course.named += 1  # after it: what ends the command in between has it named twice at most


def _count_the_others(tally: Tally) -> None:
    if more := unnamed(tally):
        click.echo(f"… and {many(more, 'line')} more", err=True)
