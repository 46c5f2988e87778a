"""How a command reaches the data: the daemon's socket first, else the SQLite file."""

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import orjson

from syncd.cli.wire import PATIENT_S, TIMEOUT_S, Wire
from syncd.config import (
    Config,
    ConfigErrorWithRest,
    NoSettings,
    Paths,
    PathsUnsure,
    guesses,
    load,
    locate,
)
from syncd.core.sending import Live
from syncd.errors import ConfigError, SyncdError

DEEP = 1000
MUTE_S = 3.0  # longer than this nobody waits without a word
Query = Mapping[str, str | float | tuple[str, ...] | None]
"""What to read; None asks for nothing, a tuple is given several times."""


@dataclass(frozen=True, slots=True)
class Door:
    """One command's way to the data."""

    config: Config
    paths: Paths
    silence_s: float = TIMEOUT_S
    """For which a reader waits for an answer."""

    @property
    def wire(self) -> Wire:
        """The daemon's socket."""
        return Wire(self.paths.socket, self.silence_s)

    def lines(self, what: str, query: Query) -> Iterator[bytes]:
        """Rows of patches, runs or batches, each the text of one JSON object.

        Says on stderr if the daemon is down.
        """
        return self.wire.lines(_target(what, query)) or self._lines_of_file(what, query)

    def rows(self, what: str, query: Query) -> Iterator[dict[str, Any]]:
        """The same as dicts, for where numbers need not stay as they were written."""
        return map(read_row, self.lines(what, query))

    def one(self, what: str, query: Query) -> bytes | None:
        """The text of one JSON object, a patch or a snapshot; None if there is none."""
        lines = self.wire.lines(_target(what, query), missing=True)
        return next(lines or self._lines_of_file(what, query), None)

    def status(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None if it is down."""
        answer = self.wire.ask("GET", "/status")
        return None if answer is None else orjson.loads(answer)

    def tell(
        self, target: str, body: bytes = b"", *, wait_s: float = PATIENT_S
    ) -> dict[str, Any] | None:
        """POST to the daemon and return its answer; None if it is down.

        Says on stderr if it takes long.
        """
        with aloud():
            answer = self.wire.ask("POST", target, body, timeout=wait_s)
        return None if answer is None else orjson.loads(answer)

    @contextmanager
    def kept_open(self, target: str, body: bytes) -> Iterator[dict[str, Any] | None]:
        """The same for what lasts as long as the block, and as this process at most."""
        with ExitStack() as stack:
            with aloud():
                line = stack.enter_context(self.wire.kept_open(target, body, timeout=PATIENT_S))
            yield None if line is None else orjson.loads(line)

    def _lines_of_file(self, what: str, query: Query) -> Iterator[bytes]:
        from syncd.store import plan, read
        from syncd.store.schema import open_reader

        given: dict[str, Any] = {name: it for name, it in query.items() if it is not None}
        now = time.time()
        must_be_there(self.paths.store)
        with opened(open_reader, self.paths.store) as db:
            _say_that_it_is_down(self.paths)
            match what:
                case "patches":
                    rows = read.patches(db, now, **given)
                case "patch":
                    rows = filter(None, [read.patch(db, given["id"], now)])
                case "snapshot":
                    rows = filter(None, [read.snapshot(db, given["run"])])
                case "runs":
                    where = [pair.partition("=")[::2] for pair in given.pop("where", ())]
                    rows = read.runs(db, where=where, **given)
                case "why":
                    rows = self._why(db, now, **given)
                case "plan":
                    rows = iter(plan.plan(db, now, self._stopped(db, now), **given))
                case _:
                    rows = read.batches(db, **given)
            yield from map(read.encode, rows)

    def _why(
        self, db: sqlite3.Connection, now: float, id: int = 0, run: str | None = None
    ) -> Iterator[dict[str, Any]]:
        from syncd.store import why

        live = self._stopped(db, now)
        found = why.patch(db, id, now, live) if run is None else why.run(db, run, now, live)
        return filter(None, [found])

    def _stopped(self, db: sqlite3.Connection, now: float) -> Live:
        from syncd.store import read

        return Live(read.stopped(db, now), self.config.delivery.fold)


def read_row(line: bytes) -> dict[str, Any]:
    """A row as a dict. One with what only SQLite takes for JSON must not hide the others.

    SQLite takes numbers beyond a double, half surrogates, and a thousand levels.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + DEEP)
    try:
        row: dict[str, Any] = json.loads(line)
    finally:
        sys.setrecursionlimit(before)
    return row


def door(config_path: str | None) -> Door:
    """The way to the data of the daemon with that configuration.

    Wrong values are told on stderr: they must not take the brake away from an operator whose daemon
    runs on with the old ones. Raises ConfigError where it is not sure which daemon is meant.
    """
    try:
        return strict_door(config_path)
    except ConfigErrorWithRest as error:
        for line in error.errors:
            click.echo(f"syncd: {line}", err=True)
        return Door(error.rest, locate(error.rest, os.environ))


def readers_door(config_path: str | None) -> Door:
    """The same for who only looks, and may be shown a daemon that is but likely the one meant.

    That is where the settings file cannot be read at all, or what is wrong in it may have said
    where things are; if no daemon listens where its own may be, it raises ConfigError too.
    """
    try:
        return door(config_path)
    except PathsUnsure as error:
        rest = error.rest, locate(error.rest, os.environ)
        return _listening(error, chain([rest], guesses(error.rest.source, os.environ)))
    except NoSettings as error:
        return _listening(error, guesses(error.source, os.environ))


def _listening(error: ConfigError, candidates: Iterable[tuple[Config, Paths]]) -> Door:
    """The first at which a daemon answers; says so, and raises the error where none does."""
    for config, paths in candidates:
        guessed = Door(config, paths)
        with suppress(SyncdError):
            if guessed.wire.answers():
                *others, last = error.errors
                for line in others:
                    click.echo(f"syncd: {line}", err=True)
                click.echo(f"syncd: {last}; asking who listens on {paths.socket}", err=True)
                return guessed
    raise error


def strict_door(config_path: str | None) -> Door:
    """The same where every setting matters. Raises ConfigError for any that is wrong."""
    config = load(config_path, os.environ)
    return Door(config, locate(config, os.environ))


@contextmanager
def opened(
    opener: Callable[[Path], sqlite3.Connection], path: Path
) -> Iterator[sqlite3.Connection]:
    """The database while the block runs; whatever it cannot do is one line for a person."""
    from syncd.store.errors import SQLITE_ERRORS, translated

    try:
        with closing(opener(path)) as db:
            yield db
    except SQLITE_ERRORS as error:
        raise translated(error, str(path)) or error from error
    except PermissionError as error:
        raise SyncdError(f"{path}: permission denied: run this as its owner") from error


def is_there(path: Path) -> bool:
    """Whether something is at the path. What must not be looked at is not taken for nothing."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise SyncdError(f"{path}: permission denied: run this as its owner") from error
    except OSError as error:
        raise SyncdError(f"{path}: {error.strerror}: name another path") from error
    return True


def must_be_there(path: Path) -> None:
    """Raises SyncdError for a database that is not there though a process uses it."""
    from syncd.store.lock import is_in_use

    if not is_there(path) and is_in_use(path):
        raise SyncdError(
            f"{path}: is not there, though a process uses it: put it back, with its -wal; if a"
            " daemon has just been started, try again"
        )


@contextmanager
def aloud() -> Iterator[None]:
    """Say on stderr if the block takes long."""
    timer = threading.Timer(MUTE_S, _say_that_it_takes_long)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # Python dies at its end of a thread that is just writing to stderr


@cache  # once is enough for a command that asks several times
def _say_that_it_takes_long() -> None:
    click.echo(
        f"syncd: no answer from the daemon for {MUTE_S:g} s: still waiting; Ctrl-C ends the wait,"
        " but what was asked may still be done",
        err=True,
    )


@cache
def _say_that_it_is_down(paths: Paths) -> None:
    from syncd.store.lock import daemon_of

    what = "is not running"
    if pid := daemon_of(paths.store):
        what = f"runs, pid {pid}, but none answers at {paths.socket}"
    click.echo(f"syncd: the daemon {what}: this is what its database holds", err=True)


def _target(what: str, query: Query) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"/read/{what}?{urlencode(given, doseq=True)}"
