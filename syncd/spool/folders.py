"""The spool's folders: `incoming/`, `taking/`, `done/` and `rejected/`, and moves between them."""

import errno
import io
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

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
_SUFFIX = re.compile(r"(\.[^.]+)?(\.gz)?$", re.IGNORECASE)
_OF_FOLDERS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


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
    of the folders is not followed, for what is behind it was never dropped here.
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
            folder.mkdir(0o700 if folder == self.taking else 0o750, exist_ok=True)
        self._must_be_folders()

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
            for name in _names(folder)
        )

    def rejected(self) -> int:
        """What lies in `rejected/` for an operator to look at, reasons not counted."""
        return sum(not name.endswith(".reason.txt") for name in _names(self._rejected))

    def scan(self, stages: Mapping[str, Stage]) -> Outlook:
        """Look at every file in `incoming/`, knowing what events have told."""
        ready: list[tuple[int, Candidate]] = []
        refused: list[tuple[str, str]] = []
        waits: list[float] = []
        self._must_be_folders()
        seen = self._seen
        self._seen = {}
        for name in os.listdir(self.incoming):
            if is_ignored(name):
                continue
            with suppress(FileNotFoundError):
                status = (self.incoming / name).lstat()
                match judge(self._sight(name, status, seen.get(name), stages), self.settle_s):
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
        self._must_be_folders()
        if os.path.lexists(self.taking / candidate.name):
            raise FileExistsError(errno.EEXIST, "one of that name is being taken", candidate.name)
        file = _open(self.incoming / candidate.name)
        return Taken(candidate.name, file, candidate.closed)

    def claim(self, taken: Taken) -> Taken | Refuse:
        """Move an open file to `taking/`, where nobody can replace it, for good.

        If another has taken its place meanwhile, that one is claimed, and nothing known of it.
        """
        self._must_be_folders()
        os.rename(self.incoming / taken.name, self.taking / taken.name)
        os.fsync(taken.file.fileno())
        _sync(self.taking, self.incoming)
        opened, claimed = os.fstat(taken.file.fileno()), (self.taking / taken.name).lstat()
        if (opened.st_dev, opened.st_ino) == (claimed.st_dev, claimed.st_ino):
            return taken
        taken.file.close()
        return self.resume(taken.name)

    def leftovers(self) -> list[str]:
        """The files in `taking/`, oldest first: what an earlier process had claimed."""
        self._must_be_folders()
        names = [name for name in os.listdir(self.taking) if not name.startswith(".")]
        return sorted(names, key=lambda name: ((self.taking / name).lstat().st_mtime_ns, name))

    def resume(self, name: str) -> Taken | Refuse:
        """Open a file in `taking/`."""
        self._must_be_folders()
        path = self.taking / name
        refusal = refusal_of(path.lstat().st_mode)
        if refusal is not None:
            return Refuse(refusal)
        file = _open(path)
        return Taken(name, file, closed=writer_of(file.fileno()) is Writer.NONE)

    def add_rejects(self, name: str, at: int, lines: Sequence[bytes]) -> int:
        """Write lines at offset `at` of the rejects of a file, and nothing after them.

        They are on disk when this returns the offset after them.
        """
        self._must_be_folders()
        path = self._rejects_of(name)
        new = not path.exists()
        with path.open("ab") as file:
            file.truncate(at)
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync(self.taking)
        return at + sum(map(len, lines))

    def cut_rejects(self, name: str, at: int) -> None:
        """Drop what was written of the rejects of a file and not recorded."""
        self._must_be_folders()
        with suppress(FileNotFoundError):
            if at == 0:
                self._rejects_of(name).unlink()
            else:
                os.truncate(self._rejects_of(name), at)

    def finish(self, name: str) -> None:
        """Publish the rejects of a file in `taking/`, then move it to `done/`."""
        self._must_be_folders()
        rejects = self._rejects_of(name)
        if rejects.exists():
            target = self._free(self._rejected, name, ".rejected.jsonl")
            os.rename(rejects, target)
            _sync(self._rejected)
        with suppress(FileNotFoundError):  # an operator has removed it; all of it is taken
            os.rename(self.taking / name, self._free(self.done, name))
        _sync(self.done, self.taking)

    def reject(self, name: str, reason: str) -> None:
        """Move a file from `taking/` to `rejected/` whole, beside its reason."""
        self._must_be_folders()
        if self._rejects_of(name).exists():
            os.rename(self._rejects_of(name), self._free(self._rejected, name, ".rejected.jsonl"))
        self._move_out(self.taking / name, reason)

    def refuse(self, name: str, reason: str) -> None:
        """Move what is no regular file from `incoming/` to `rejected/`, beside the reason."""
        self._must_be_folders()
        self._move_out(self.incoming / name, reason)

    def _must_be_folders(self) -> None:
        """Right before each use: a link in place of a folder would be followed without a word."""
        for folder in self._folders:
            with suppress(FileNotFoundError):  # it is made anew
                if flaw := no_folder(folder.lstat().st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, flaw, str(folder))

    def _move_out(self, path: Path, reason: str) -> None:
        if not os.path.lexists(path):
            return
        target = self._free(self._rejected, path.name, companion=".reason.txt")
        note = target.with_name(target.name + ".reason.txt")
        try:
            with note.open("w", encoding="utf-8") as file:
                file.write(reason + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(path, target)
        except OSError:
            note.unlink(missing_ok=True)
            raise
        _sync(self._rejected, path.parent)

    def _sight(
        self,
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
            with suppress(OSError), _open(self.incoming / name) as file:
                writer = writer_of(file.fileno())
        return Sight(
            status.st_mode,
            status.st_size,
            status.st_nlink,
            now - since,
            stages.get(name, Stage.UNSEEN),
            writer,
        )

    def _rejects_of(self, name: str) -> Path:
        return self.taking / _fit("." + name, ".rejects")

    def _free(self, folder: Path, name: str, ending: str = "", companion: str = "") -> Path:
        """A path in `folder` that neither a file nor, with `companion`, its companion has."""
        suffix = _SUFFIX.search(name)
        if not ending and suffix is not None:
            ending = suffix[0]
        stem = name.removesuffix(ending)
        numbers = (f".{n}" if n else "" for n in count())
        paths = (
            folder / _fit(stem, number + ending + companion).removesuffix(companion)
            for number in numbers
        )
        return next(
            path
            for path in paths
            if not os.path.lexists(path)
            and not (companion and os.path.lexists(f"{path}{companion}"))
        )


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 appear as \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def no_folder(mode: int) -> str | None:
    """Why something of that mode, itself and not what it leads to, is no folder of a spool."""
    if stat.S_ISDIR(mode):
        return None
    what = "a symbolic link, not a folder" if stat.S_ISLNK(mode) else "not a folder"
    return f"{what}: move it away"


def _denied(folder: Path) -> str:
    with suppress(OSError):  # a disk that is gone
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "on a read-only file system: mount it for writing"
    return "permission denied: let the daemon's user read and write it"


def _open(path: Path) -> SpoolFile:
    """Open a regular file for reading, never following a link, never waiting for a FIFO."""
    file = SpoolFile(os.open(path, _READ), "r")
    refusal = refusal_of(os.fstat(file.fileno()).st_mode)
    if refusal is not None:
        file.close()
        raise OSError(errno.EINVAL, refusal, str(path))
    return file


def _fit(stem: str, ending: str) -> str:
    room = NAME_MAX - len(os.fsencode(ending))
    return os.fsdecode(os.fsencode(stem)[:room]) + ending


def _names(folder: Path) -> list[str]:
    try:
        return [] if folder.is_symlink() else os.listdir(folder)
    except OSError:
        return []


def _sync(*folders: Path) -> None:
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
