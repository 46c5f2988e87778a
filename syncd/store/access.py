"""The files of a database as they lie, and what keeps this user from writing them; only looks."""

import os
import stat
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = 512  # SQLite's smallest
ROOM_BYTES = 1 << 20


def beside(path: Path, end: str) -> Path:
    """A file that belongs to a database. Whatever name leads to it, SQLite has them where it is."""
    return Path(os.path.realpath(path) + end)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path, None for none; SQLite goes by the same.

    Raises OSError where that cannot be seen: the file may well be there.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def hindrance(path: Path, *, at_start: bool = False) -> str | None:
    """Why no database can be made or written at the path: what, where and what to do; else None.

    Looks at the files that SQLite and the lock have there, and at the nearest folder that exists:
    missing ones are made at the start, which also gives its own database the mode it should have.
    """
    if why := lost(path) or linked(path):
        return why
    for file in (beside(path, ".lock"), path, beside(path, "-wal"), beside(path, "-shm")):
        if not os.path.isfile(file) or os.access(file, os.R_OK | os.W_OK):
            continue
        if at_start and file.suffix != ".lock" and file.stat().st_uid == os.geteuid():
            continue
        return _denied(file)
    return folder_hindrance(path.parent) or folder_hindrance(beside(path, "").parent)


def has_room(path: Path) -> bool:
    """Whether the disk of a database has room for what is usually written at once."""
    try:
        disk = os.statvfs(path)
    except OSError:  # who writes will see
        return True
    return disk.f_bavail * disk.f_frsize >= ROOM_BYTES


def lost(path: Path) -> str | None:
    """Why no database may be opened or made at the path, if one was there and is not any more.

    A new one of the name would take from a log that is left what was accepted last. And SQLite
    takes a file that is too short for a page, as a failed disk leaves it, for one that is new.
    """
    log = beside(path, "-wal")
    size = _size(path)
    if _size(log) and not size:
        return (
            f"is {'not there' if size is None else 'empty'}, but its log is there, with what was"
            f" accepted last: put the database back beside {log.name}, or move that away too"
        )
    if size is None or size >= PAGE_BYTES:
        return None
    return (
        f"damaged: is {f'{size} bytes long' if size else 'empty'}, which no database is: put it"
        " back from a copy; if there never was one, remove the file"
    )


def _size(file: Path) -> int | None:
    """None for what is not there, or no file, or not to be looked at."""
    with suppress(OSError):
        if os.path.isfile(file):
            return file.stat().st_size
    return None


def linked(path: Path) -> str | None:
    """Why nobody may write the database, if it has more names than one: SQLite keeps a log beside
    each of them, and so what is written by one name is not seen by another, or lost."""
    with suppress(OSError):
        if os.path.isfile(path) and (links := path.stat().st_nlink) > 1:
            return (
                f"has {links} hard links, and SQLite can keep only one safe: stop who uses it, and"
                f" remove the others: `find FOLDER -samefile {path}` names them"
            )
    return None


def folder_hindrance(folder: Path) -> str | None:
    """Why nothing can be made in the folder, which is made with its parents where missing."""
    for place in (folder, *folder.parents):
        try:
            status, blocks = place.stat(), os.statvfs(place).f_blocks
        except (FileNotFoundError, NotADirectoryError):
            if place.is_symlink():
                return f"{place}: a symbolic link that leads nowhere: mend it, or move it away"
            continue
        except PermissionError:
            return f"{place}: permission denied: let this user enter the folders above"
        except OSError as error:
            return f"{place}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return f"{place}: not a folder: move it away"
        if not os.access(place, os.W_OK | os.X_OK):
            return _denied(place)
        # /proc lets root in, and then makes nothing. Others that tell no size may hold files.
        if not blocks and _file_system(status.st_dev) in _NO_FILES:
            return f"{place}: on a file system that stores no files: name a place on a disk"
        return None
    return None


_NO_FILES = {"proc", "sysfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "configfs"}


def _file_system(device: int) -> str | None:
    """The kind of a file system that is mounted, None if that cannot be told."""
    with suppress(OSError):
        for mount in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = mount.split(" ")
            if fields[2] == f"{os.major(device)}:{os.minor(device)}":
                return fields[fields.index("-") + 1]
    return None


def _denied(place: Path) -> str:
    with suppress(OSError):  # a disk that is gone
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            return f"{place}: on a read-only file system: mount it for writing"
    return f"{place}: permission denied: this user may not write it: run this as its owner"
