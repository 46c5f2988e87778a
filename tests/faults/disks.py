"""Small disks for tests: a tmpfs that can be filled and made read-only. Mounting needs root."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

WHOLE = 1 << 16


@cache
def _why_not() -> str | None:
    """Why no disk can be mounted here, if so."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    with tempfile.TemporaryDirectory() as place:
        tried = _mount("-t", "tmpfs", "tmpfs", place)
        if tried.returncode == 0:
            subprocess.run(["umount", place], check=True)
    return None if tried.returncode == 0 else f"mount is refused here: {tried.stderr.strip()}"


def _mount(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


class Disk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / ".ballast"

    def fill(self) -> None:
        """Use up the last byte."""
        with open(self._ballast, "ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(WHOLE))
        with open(self._ballast, "ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))

    def free(self) -> None:
        """Give back what `fill` has taken."""
        self._ballast.unlink()

    def read_only(self, *, on: bool) -> None:
        """Let nobody write, or everybody again. Fails while somebody has a file open to write."""
        made = _mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.path))
        assert made.returncode == 0, made.stderr


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Disk]:
    """A disk of that size mounted at `path`. The test is skipped, aloud, where that cannot be."""
    if reason := _why_not():
        pytest.skip(reason)
    path.mkdir(parents=True, exist_ok=True)
    made = _mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path))
    assert made.returncode == 0, made.stderr
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
