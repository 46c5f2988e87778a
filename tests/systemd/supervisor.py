"""systemd's side of the notify socket, for a daemon that runs as a plain process."""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import PATIENCE_S, Daemon, Running, environment

Message = dict[str, str]


class Supervisor:
    """Starts a daemon and hears what it tells, in order."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._path = daemon.folder / "systemd.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))

    def start(self, **variables: str) -> Self:
        """Start the daemon; it need not be ready yet."""
        folder = self.daemon.folder
        env = environment(
            folder, **self.daemon.environment, NOTIFY_SOCKET=str(self._path), **variables
        )
        self.daemon.running = Running("daemon", ["run"], folder, env)
        return self

    def heard(self, wanted: str, timeout: float = PATIENCE_S) -> Message:
        """The next message with that field, `NAME` or `NAME=text in its value`."""
        name, _, text = wanted.partition("=")
        deadline = time.monotonic() + timeout
        passed: list[Message] = []
        while (left_s := deadline - time.monotonic()) > 0:
            message = self._next(left_s)
            if message is None:
                break
            if name in message and text in message[name]:
                return message
            passed.append(message)
        raise AssertionError(f"no {wanted} in {timeout} s, but {passed}\n{self.daemon.log()}")

    def hears(self, name: str, seconds: float) -> int:
        """How many messages with that field come within some seconds from now."""
        while self._next(0.0) is not None:
            pass
        deadline, count = time.monotonic() + seconds, 0
        while (left_s := deadline - time.monotonic()) > 0:
            count += name in (self._next(left_s) or {})
        return count

    def _next(self, timeout: float) -> Message | None:
        self._socket.settimeout(timeout)
        try:
            text = self._socket.recv(8192).decode()
        except (TimeoutError, BlockingIOError):
            return None
        return dict(line.split("=", 1) for line in text.splitlines())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.daemon.__exit__(kind, error, traceback)
        self._socket.close()


def supervised(folder: Path, url: str, **config: dict[str, object]) -> Supervisor:
    """A daemon that sends to `url`, not started yet."""
    return Supervisor(Daemon(folder, url, **config))
