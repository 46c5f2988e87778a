"""The control socket's place in the file system: taken at the start, kept, left at the end."""

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from syncd.errors import SyncdError

NO_SOCKET = "not a socket: move it away, or name another control.socket"


class Listener:
    """Has a runner serve at a path. Only a socket that nobody listens on is ever taken away."""

    def __init__(self, path: Path, runner: web.AppRunner) -> None:
        self._path = path
        self._runner = runner
        self._site: web.SockSite | None = None
        self._ours: tuple[int, int] | None = None
        """Device and inode, which nobody else is given for as long as the socket is open."""

    async def begin(self) -> None:
        """Serve. Raises SyncdError if the path is taken or not ours."""
        _make_way(self._path)
        await self._serve()

    async def go_on(self) -> bool:
        """Serve anew if our socket is at the path no more; whether that was so.

        Raises SyncdError if it cannot, or another daemon is there.
        """
        if self._is_ours():
            return False
        await asyncio.to_thread(_make_way, self._path)  # it may have to wait for an answer
        deaf = self._site
        await self._serve()
        if deaf is not None:
            await deaf.stop()
        return True

    def end(self) -> None:
        """Leave the path, if it is still ours."""
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    @property
    def trouble(self) -> str | None:
        """Why no command can get here, if so."""
        if self._is_ours():
            return None
        if not os.path.lexists(self._path):
            what = "was removed"
        elif self._path.is_socket():
            what = "is another process's"
        else:
            what = "is not a socket: move it away"
        return f"no command can get here: {self._path} {what}"

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return _identity(self._path) == self._ours
        return False

    async def _serve(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self._path, error) from error
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                ours = _bound(listener, self._path)
                site = web.SockSite(self._runner, listener)
                await site.start()
            except BaseException:
                listener.close()
                raise
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._site, self._ours = site, ours


def _bound(listener: socket.socket, path: Path) -> tuple[int, int]:
    """Take the path, on which nothing may be; what is there is known by this from then on."""
    before = os.umask(0o117)  # members of the group may connect, others may not
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    return _identity(path)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _make_way(path: Path) -> None:
    """A socket left behind by a killed daemon is removed; one that answers is not."""
    try:
        if not path.is_socket():
            if os.path.lexists(path):
                raise SyncdError(f"{path}: {NO_SOCKET}")
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise SyncdError(
                    f"{path}: another daemon listens here: stop it, or name another control.socket"
                )
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> SyncdError:
    return SyncdError(f"{path}: {error.strerror or error}: check control.socket")
