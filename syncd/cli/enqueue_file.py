"""`syncd enqueue --file`: a file or a pipe into the outbox, part by part, with its progress."""

import json
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import click

from syncd.cli.door import Door
from syncd.cli.outbox import PART_PATCHES, ByDaemon, ByFile, Taken, outbox, parts
from syncd.cli.printing import many, plain
from syncd.errors import SyncdError
from syncd.formats import Chunk, Format, Kind, Reject, format_of, read

NAMED = 20  # rejected lines shown to people
KEPT = 1000  # rejected lines in --json

_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Tally:
    """How far it is."""

    name: str
    taken: Taken = field(default_factory=Taken)
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    """The first of them."""
    on_its_way: int = 0
    """Handed in, and not yet known to be accepted."""
    line: int = 0
    """Lines of the file that are done with."""


def enqueue_file(to: Door, path: str, format_name: str | None, *, as_json: bool) -> int:
    """Hand in a file's patches in order. Returns 1 if any of its lines was rejected."""
    tally = Tally("stdin" if path == "-" else plain(Path(path).name))
    limit = to.config.spool.max_file_bytes
    # Who ends it in a friendly way is told as much as who presses Ctrl-C, and so is the batch.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _file(path) as file:
            kind = _format(path, format_name, file)
            chunks = read(file, kind, rows=PART_PATCHES, limit=limit)
            with (
                outbox(to) as box,
                _progress(file) as progress,
                closing(_hand_in(box, chunks, tally)) as handed_in,
            ):
                for chunk in handed_in:
                    progress(tally)
                    if not as_json:
                        _show_rejects(tally, chunk)
    except SyncdError as error:
        raise SyncdError(f"{tally.name}: {error}{_so_far(tally)}") from error
    except KeyboardInterrupt:
        click.echo(f"syncd: {tally.name}: stopped{_so_far(tally)}{_perhaps(tally)}", err=True)
        raise
    click.echo(_as_json(tally) if as_json else _said(tally))
    return 1 if tally.rejected else 0


def _hand_in(
    box: ByDaemon | ByFile, chunks: Iterator[Chunk], tally: Tally
) -> Generator[Chunk, None, None]:
    """Each chunk, once it is in the outbox. Nobody waits for a file that broke off."""
    batch_id: int | None = None
    try:
        for chunk in chunks:
            if chunk.patches and batch_id is None:
                batch_id = box.open_batch(tally.name)
            for part in parts(chunk.patches):
                tally.on_its_way = len(part)
                tally.taken += box.accept(part, batch_id)
                tally.on_its_way = 0
            tally.rejected += len(chunk.rejects)
            tally.rejects += chunk.rejects[: KEPT - len(tally.rejects)]
            tally.line = chunk.end.line
            yield chunk
    except BaseException as error:
        if batch_id is not None:
            with suppress(SyncdError):
                box.leave_batch(batch_id, tally.rejected, _why(error))
        raise
    if batch_id is not None:
        box.close_batch(batch_id, tally.rejected)


def _why(error: BaseException) -> str:
    """Why the rest does not come, for whoever waits for the batch."""
    from syncd.store.accept import CUT_OFF, INTERRUPTED

    match error:
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


@contextmanager
def _file(path: str) -> Iterator[BinaryIO]:
    if path == "-":
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


def _show_rejects(tally: Tally, chunk: Chunk) -> None:
    before = tally.rejected - len(chunk.rejects)
    for reject in chunk.rejects[: max(0, NAMED - before)]:
        click.echo(f"{tally.name}:{reject.line}: {plain(reject.reason)}", err=True)


def _so_far(tally: Tally) -> str:
    if not tally.taken.accepted:
        return " (nothing was accepted)"
    return f" ({many(tally.taken.accepted, 'patch')} accepted, up to line {tally.line})"


def _perhaps(tally: Tally) -> str:
    """What was handed in when the command was interrupted, its answer still to come."""
    if not tally.on_its_way:
        return ""
    return f", and perhaps {many(tally.on_its_way, 'patch')} more: see `syncd batches`"


def _said(tally: Tally) -> str:
    taken = tally.taken
    if tally.rejected > NAMED:
        click.echo(f"… and {many(tally.rejected - NAMED, 'line')} more", err=True)
    batch = f" as batch {tally.name}" if taken.accepted or taken.duplicates else ""
    counts = (
        f"accepted {many(taken.accepted, 'patch')}{batch}",
        f"{many(taken.duplicates, 'duplicate')} skipped" if taken.duplicates else "",
        f"rejected {many(tally.rejected, 'line')}" if tally.rejected else "",
    )
    return ", ".join(filter(None, counts))


def _as_json(tally: Tally) -> str:
    found = {
        "accepted": tally.taken.accepted,
        "duplicates": tally.taken.duplicates,
        "first_id": tally.taken.first_id,
        "last_id": tally.taken.last_id,
        "batch": tally.name,
        "rejected_count": tally.rejected,
        "rejected": [
            {"line": reject.line, "reason": reject.reason, "input": reject.input}
            for reject in tally.rejects
        ],
    }
    return json.dumps(found, ensure_ascii=False)
