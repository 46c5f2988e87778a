"""The spool's folders, held open: what is done in one stays in it, whatever takes its place."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from syncd.spool.ready import refusal_of

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder, and what can be done with the names in it: no link among them is followed.

    Raises OSError, with the whole path in it.
    """

    path: Path
    descriptor: int

    def names(self) -> list[str]:
        """All that is in it."""
        with self._told():
            return os.listdir(self.descriptor)

    def has(self, name: str) -> bool:
        """Whether anything has the name, even a link that leads nowhere."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def status(self, name: str) -> os.stat_result:
        """Of what has the name itself."""
        with self._told(name):
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a regular file, never of anything else; nor does it wait for a FIFO."""
        with self._told(name):
            file = os.open(name, flags | _FILE, 0o666, dir_fd=self.descriptor)
            if refusal := refusal_of(os.fstat(file).st_mode):
                os.close(file)
                raise OSError(errno.EINVAL, refusal)
        return file

    def move(self, name: str, to: "Folder", target: str) -> None:
        """Rename it, into another folder or within this one."""
        with self._told(name, to.path / target):
            os.rename(name, target, src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)

    def remove(self, name: str) -> None:
        """Unlink it."""
        with self._told(name):
            os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Have its names on disk."""
        with self._told():
            os.fsync(self.descriptor)

    @contextmanager
    def _told(self, name: str = "", target: Path | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = os.fspath(self.path / name)
            if target is not None:
                error.filename2 = os.fspath(target)
            raise


@contextmanager
def opened(spool: Path, *names: str) -> Iterator[list[Folder]]:
    """The folders of these names in the spool, open until the block ends.

    The path may lead through links, the names may not, and this holds until the end: a check by
    name would be over before the use. Nothing is kept open from one use to the next, so that a
    folder that was made anew is the one that is used.
    """
    with ExitStack() as stack:
        way = os.open(spool, _FOLDER | os.O_PATH)
        stack.callback(os.close, way)
        folders = []
        for name in names:
            folders.append(Folder(spool / name, _opened(spool, way, name)))
            stack.callback(os.close, folders[-1].descriptor)
        yield folders


def no_folder(mode: int) -> str | None:
    """Why something of that mode, itself and not what it leads to, is no folder of a spool."""
    if stat.S_ISDIR(mode):
        return None
    what = "a symbolic link, not a folder" if stat.S_ISLNK(mode) else "not a folder"
    return f"{what}: move it away"


def _opened(spool: Path, way: int, name: str) -> int:
    path = os.fspath(spool / name)
    try:
        return os.open(name, _FOLDER | os.O_RDONLY | os.O_NOFOLLOW, dir_fd=way)
    except NotADirectoryError:
        flaw = no_folder(os.stat(name, dir_fd=way, follow_symlinks=False).st_mode)
        raise NotADirectoryError(errno.ENOTDIR, flaw or "was no folder", path) from None
    except OSError as error:
        error.filename = path
        raise
