"""Starts `syncd` by fork, from a process that has imported it all: most of a start is imports.

What starts so has the arguments, environment, folder and standard streams that it is given, and is
a process like any other: with a pid, killed by signals, its memory its own. Not like one of a
user's is that everything is imported, and that /proc shows the command line of the zygote; a
setting that Python reads at its start comes too late.
"""

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import syncd.cli

MOST = 1 << 20  # bytes of a request: arguments and environment
EARLY = ("PYTHON", "LANG", "LC_", "TZ", "SSL_")  # read when Python starts, or by an import
USUAL = {"LANG": "C.UTF-8"}


class Forked:
    """The part of `subprocess.Popen` that tests use, of a child of the zygote."""

    def __init__(self, arguments: Sequence[str], told: socket.socket) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._told = told
        self.pid: int = json.loads(told.recv(64))

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            text = self._told.recv(64)
            self._told.close()
            assert text, "the zygote has died"
            self.returncode = json.loads(text)
        return self.returncode


class Zygote:
    """Our end. It is started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def can_start(self, env: Mapping[str, str]) -> bool:
        """Whether nothing in that environment would come too late."""
        return {name: text for name, text in env.items() if name.startswith(EARLY)} == USUAL

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        streams: Sequence[int],
    ) -> Forked:
        """`syncd` with these arguments, and stdin, stdout and stderr."""
        if self._process is None:
            self._process = self._born()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            asked = json.dumps([list(arguments), dict(env), str(cwd)]).encode()
            socket.send_fds(self._line, [asked], [*streams, theirs.fileno()])
        return Forked(arguments, ours)

    def end(self) -> None:
        """Nothing more is started; what runs goes on."""
        self._theirs.close()
        self._line.close()
        if self._process is not None:
            self._process.wait(10)

    def _born(self) -> subprocess.Popen[bytes]:
        with self._theirs as theirs:
            return subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={"PATH": os.environ.get("PATH", os.defpath), **USUAL},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )


def serve(line: socket.socket) -> list[str]:
    """Fork for each request. Returns in the children, with their arguments; ends with `line`."""
    awake, waker = socket.socketpair()
    waker.setblocking(False)
    awake.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([line, awake], [], [])
        if awake in ready:
            awake.recv(4096)
            _tell_of_the_dead(children)
        if line not in ready:
            continue
        text, fds, _, _ = socket.recv_fds(line, MOST, 4)
        if not text:
            sys.exit()
        told = socket.socket(fileno=fds.pop())
        pid = os.fork()
        if pid == 0:
            for one in (line, awake, waker, told, *children.values()):
                one.close()
            return _become(json.loads(text), fds)
        for fd in fds:
            os.close(fd)
        told.send(json.dumps(pid).encode())
        children[pid] = told


def _tell_of_the_dead(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as told:
            code = json.dumps(os.waitstatus_to_exitcode(status)).encode()
            with suppress(BrokenPipeError):  # nobody waits for it
                told.send(code)


def _become(asked: Any, fds: list[int]) -> list[str]:
    arguments: list[str]
    arguments, env, cwd = asked
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    # Anew, as what Python made of those of the zygote depends on what these were.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    return arguments


def _import_all() -> None:
    for module in pkgutil.walk_packages(syncd.__path__, "syncd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    started_as = Path(syncd.cli.__file__).parents[1] / "__main__.py"  # by `python -m syncd`
    sys.argv = [str(started_as), *serve(socket.socket(fileno=int(sys.argv[1])))]
    syncd.cli.main()
