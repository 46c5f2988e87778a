"""The control socket's place in the file system: taken when a daemon starts, left when it ends."""

import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from syncd.errors import SyncdError


async def listen(path: Path, runner: web.AppRunner, stack: AsyncExitStack) -> None:
    """Have a runner serve at `path` until `stack` is closed.

    Raises SyncdError if the path is taken or not ours.
    """
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o117)  # members of the group may connect, others may not
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        raise SyncdError(f"{path}: {error.strerror or error}: check control.socket") from error
    finally:
        os.umask(before)
    stack.callback(path.unlink, missing_ok=True)
    await web.SockSite(runner, listener).start()


def _make_way(path: Path) -> None:
    """A socket left behind by a killed daemon is removed; one that answers is not."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not path.is_socket():
            if path.exists():
                raise SyncdError(f"{path}: not a socket: name another control.socket")
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
        raise SyncdError(f"{path}: {error.strerror or error}: check control.socket") from error
