"""The spool's folders: `incoming/`, `taking/`, `done/` and `rejected/`, and moves between them."""

import errno
import io
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from syncd.spool.opened import Folder, no_folder, opened
from syncd.spool.ready import (
    Refuse,
    Sight,
    Stage,
    Take,
    Wait,
    Writer,
    is_ignored,
    judge,
    refusal_of,
)
from syncd.spool.writers import may_ask, writer_of

NAME_MAX = 255  # bytes
_REASON = ".reason.txt"
_SUFFIX = re.compile(r"(\.[^.]+)?(\.gz)?$", re.IGNORECASE)
_OF_FOLDERS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file in `incoming/` that may be taken."""

    name: str
    closed: bool
    """Its writer is known to have finished."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a look into `incoming/` found, oldest first."""

    ready: list[Candidate]
    refused: list[tuple[str, str]]
    """Name and reason."""
    look_again_s: float | None
    """When a file that is not ready may be; None if an event will tell."""


class SpoolFile(io.FileIO):
    """A file that another thread can make stop reading."""

    interrupted = False

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file; raises InterruptedError once `interrupted` is set."""
        if self.interrupted:
            raise InterruptedError(errno.EINTR, "reading was stopped", self.name)
        return super().read(size)

    def __del__(self) -> None:
        # A caller that is cancelled while a thread opens the file never gets to see it.
        self.close()


@dataclass(frozen=True, slots=True)
class Taken:
    """An open file in `taking/`. Whoever holds it closes it."""

    name: str
    file: SpoolFile
    closed: bool

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self.file.fileno()).st_size

    def is_written(self) -> bool:
        """Whether a process is known to have it open for writing."""
        return writer_of(self.file.fileno()) is Writer.SOME


class Spool:
    """Folders under one path, on one file system.

    Every call blocks, and all but those that count raise OSError. One caller at a time: `lock` is
    what guards it against another daemon. The path may lead through links; a link in place of one
    of the folders is not followed, for what is behind it was never dropped here, nor is one that
    takes a folder's place during a call.
    """

    def __init__(
        self,
        path: Path,
        settle_s: float,
        max_file_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.settle_s = settle_s
        self.max_file_bytes = max_file_bytes
        self.incoming = path / "incoming"
        self.taking = path / "taking"
        self.done = path / "done"
        self._rejected = path / "rejected"
        self._folders = (self.incoming, self.taking, self.done, self._rejected)
        self._clock = clock
        self._seen: dict[str, tuple[tuple[int, ...], float]] = {}

    def prepare(self) -> None:
        """Make the folders that are missing, for their owner alone to write to.

        Those that are there keep their mode: whoever has opened them to a group meant it.
        """
        self.path.mkdir(0o750, parents=True, exist_ok=True)
        for folder in self._folders:
            with suppress(FileExistsError):  # opening it will tell what it is
                folder.mkdir(0o700 if folder == self.taking else 0o750)
        with self._opened(*self._folders):
            pass

    def hindrance(self, error: OSError) -> str | None:
        """Which of the folders has made a call fail, and what to do; None if that is not it."""
        if error.errno not in _OF_FOLDERS:
            return None
        for folder in (self.path, *self._folders):
            try:
                mode = (folder.stat() if folder == self.path else folder.lstat()).st_mode
            except FileNotFoundError:
                continue  # it is made anew
            except OSError as unseen:
                return f"{folder}: {unseen.strerror}: let the daemon's user get there"
            if flaw := no_folder(mode):
                return f"{folder}: {flaw}"
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                return f"{folder}: {_denied(folder)}"
        return None

    def waiting(self) -> int:
        """Files that are not wholly taken in. One that is being moved may be counted twice."""
        return sum(
            not is_ignored(name)
            for folder in (self.incoming, self.taking)
            for name in self._names(folder)
        )

    def rejected(self) -> int:
        """What lies in `rejected/` for an operator to look at, reasons not counted."""
        return sum(not name.endswith(_REASON) for name in self._names(self._rejected))

    def scan(self, stages: Mapping[str, Stage]) -> Outlook:
        """Look at every file in `incoming/`, knowing what events have told."""
        ready: list[tuple[int, Candidate]] = []
        refused: list[tuple[str, str]] = []
        waits: list[float] = []
        with self._opened(*self._folders) as (incoming, *_):
            seen, self._seen = self._seen, {}
            for name in incoming.names():
                if is_ignored(name):
                    continue
                with suppress(FileNotFoundError):
                    status = incoming.status(name)
                    sight = self._sight(incoming, name, status, seen.get(name), stages)
                    match judge(sight, self.settle_s):
                        case Take(closed):
                            ready.append((status.st_mtime_ns, Candidate(name, closed)))
                        case Refuse(reason):
                            refused.append((name, reason))
                        case Wait(seconds):
                            waits += [seconds] if seconds is not None else []
        ready.sort(key=lambda found: (found[0], found[1].name))
        return Outlook([candidate for _, candidate in ready], refused, min(waits, default=None))

    def open(self, candidate: Candidate) -> Taken:
        """Open a file that is still in `incoming/`; `claim` comes next."""
        with self._opened(self.incoming, self.taking) as (incoming, taking):
            if taking.has(candidate.name):
                raise FileExistsError(
                    errno.EEXIST, "one of that name is being taken", candidate.name
                )
            file = _read(incoming, candidate.name)
        return Taken(candidate.name, file, candidate.closed)

    def claim(self, taken: Taken) -> Taken | Refuse:
        """Move an open file to `taking/`, where nobody can replace it, for good.

        If another has taken its place meanwhile, that one is claimed, and nothing known of it.
        """
        with self._opened(self.incoming, self.taking) as (incoming, taking):
            incoming.move(taken.name, taking, taken.name)
            os.fsync(taken.file.fileno())
            taking.sync()
            incoming.sync()
            held, claimed = os.fstat(taken.file.fileno()), taking.status(taken.name)
        if (held.st_dev, held.st_ino) == (claimed.st_dev, claimed.st_ino):
            return taken
        taken.file.close()
        return self.resume(taken.name)

    def leftovers(self) -> list[str]:
        """The files in `taking/`, oldest first: what an earlier process had claimed."""
        with self._opened(*self._folders) as (_, taking, *_):
            names = [name for name in taking.names() if not name.startswith(".")]
            return sorted(names, key=lambda name: (taking.status(name).st_mtime_ns, name))

    def resume(self, name: str) -> Taken | Refuse:
        """Open a file in `taking/`."""
        with self._opened(self.taking) as (taking,):
            refusal = refusal_of(taking.status(name).st_mode)
            if refusal is not None:
                return Refuse(refusal)
            file = _read(taking, name)
        return Taken(name, file, closed=writer_of(file.fileno()) is Writer.NONE)

    def add_rejects(self, name: str, at: int, lines: Sequence[bytes]) -> int:
        """Write lines at offset `at` of the rejects of a file, and nothing after them.

        They are on disk when this returns the offset after them.
        """
        rejects = _rejects_of(name)
        with self._opened(self.taking) as (taking,):
            new = not taking.has(rejects)
            with open(taking.open(rejects, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
                file.truncate(at)
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            if new:
                taking.sync()
        return at + sum(map(len, lines))

    def cut_rejects(self, name: str, at: int) -> None:
        """Drop what was written of the rejects of a file and not recorded."""
        rejects = _rejects_of(name)
        with self._opened(self.taking) as (taking,), suppress(FileNotFoundError):
            if at == 0:
                taking.remove(rejects)
            else:
                with open(taking.open(rejects, os.O_WRONLY), "ab") as file:
                    file.truncate(at)

    def finish(self, name: str) -> None:
        """Publish the rejects of a file in `taking/`, then move it to `done/`."""
        with self._opened(self.taking, self.done, self._rejected) as (taking, done, rejected):
            if _publish(name, taking, rejected):
                rejected.sync()
            try:
                taking.move(name, done, _free(done, name))
            except FileNotFoundError:
                if taking.has(name):  # it is the folder that was removed meanwhile
                    raise
                # An operator has removed it; all of it is taken.
            done.sync()
            taking.sync()

    def reject(self, name: str, reason: str) -> None:
        """Move a file from `taking/` to `rejected/` whole, beside its reason."""
        with self._opened(self.taking, self._rejected) as (taking, rejected):
            _publish(name, taking, rejected)
            _move_out(name, taking, rejected, reason)

    def refuse(self, name: str, reason: str) -> None:
        """Move what is no regular file from `incoming/` to `rejected/`, beside the reason."""
        with self._opened(self.incoming, self._rejected) as (incoming, rejected):
            _move_out(name, incoming, rejected, reason)

    def _opened(self, *folders: Path) -> AbstractContextManager[list[Folder]]:
        return opened(self.path, *(folder.name for folder in folders))

    def _names(self, folder: Path) -> list[str]:
        try:
            with self._opened(folder) as (it,):
                return it.names()
        except OSError:
            return []

    def _sight(
        self,
        incoming: Folder,
        name: str,
        status: os.stat_result,
        before: tuple[tuple[int, ...], float] | None,
        stages: Mapping[str, Stage],
    ) -> Sight:
        now = self._clock()
        look = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        since = before[1] if before is not None and before[0] == look else now
        self._seen[name] = (look, since)
        writer = Writer.UNKNOWN
        if may_ask(status):
            # If it cannot be opened, opening it to take it will say why.
            with suppress(OSError), _read(incoming, name) as file:
                writer = writer_of(file.fileno())
        return Sight(
            status.st_mode,
            status.st_size,
            status.st_nlink,
            now - since,
            stages.get(name, Stage.UNSEEN),
            writer,
        )


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 appear as \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _denied(folder: Path) -> str:
    with suppress(OSError):  # a disk that is gone
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "on a read-only file system: mount it for writing"
    return "permission denied: let the daemon's user read and write it"


def _read(folder: Folder, name: str) -> SpoolFile:
    return SpoolFile(folder.open(name, os.O_RDONLY), "r")


def _rejects_of(name: str) -> str:
    return _fit("." + name, ".rejects")


def _publish(name: str, taking: Folder, rejected: Folder) -> bool:
    """Move the rejects of a file to where an operator looks; whether there were any."""
    rejects = _rejects_of(name)
    if not taking.has(rejects):
        return False
    taking.move(rejects, rejected, _free(rejected, name, ".rejected.jsonl"))
    return True


def _move_out(name: str, folder: Folder, rejected: Folder, reason: str) -> None:
    if not folder.has(name):
        return
    target = _free(rejected, name, companion=_REASON)
    note = rejected.open(target + _REASON, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(note, "w", encoding="utf-8") as file:
            file.write(reason + "\n")
            file.flush()
            os.fsync(file.fileno())
        folder.move(name, rejected, target)
    except OSError:
        with suppress(FileNotFoundError):
            rejected.remove(target + _REASON)
        raise
    rejected.sync()
    folder.sync()


def _free(folder: Folder, name: str, ending: str = "", companion: str = "") -> str:
    """A name in `folder` that neither a file nor, with `companion`, its companion has."""
    suffix = _SUFFIX.search(name)
    if not ending and suffix is not None:
        ending = suffix[0]
    stem = name.removesuffix(ending)
    numbers = (f".{n}" if n else "" for n in count())
    names = (_fit(stem, number + ending + companion).removesuffix(companion) for number in numbers)
    return next(
        free
        for free in names
        if not folder.has(free) and not (companion and folder.has(free + companion))
    )


def _fit(stem: str, ending: str) -> str:
    room = NAME_MAX - len(os.fsencode(ending))
    return os.fsdecode(os.fsencode(stem)[:room]) + ending
