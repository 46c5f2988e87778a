"""Commands for tests: what they say while no daemon runs, and such as have not come to an end."""

import json
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import Daemon, environment, syncd

DOWN = "syncd: the daemon is not running: this is what its database holds\n"
UNMOVED = "syncd: nothing moves until the daemon runs: waiting for it\n"


def database(folder: Path) -> Path:
    """Where a command finds it, unless told otherwise."""
    return folder / "state/syncd/syncd.db"


def lines(text: str) -> list[dict[str, object]]:
    """The rows of a reader's JSON."""
    return [json.loads(line) for line in text.splitlines()]


def enqueue(*runs: str, folder: Path) -> None:
    """Hand in a patch for each of the runs, in that order."""
    patches = "".join(json.dumps({"workflow_run_id": run, "name": "x"}) + "\n" for run in runs)
    syncd("enqueue", "--file", "-", "--format", "jsonl", folder=folder, input=patches)


@contextmanager
def halted(daemon: Daemon) -> Iterator[None]:
    """It hangs while the block runs."""
    assert daemon.running is not None
    daemon.running.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.running.signal(signal.SIGCONT)


def begun(daemon: Daemon, *arguments: str) -> "subprocess.Popen[str]":
    """A command for this daemon that has not come to its end, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "syncd", *arguments],
        env=environment(daemon.folder, **daemon.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_word(command: "subprocess.Popen[str]") -> str:
    """Its first line on stderr; empty if there is none in good time."""
    assert command.stderr is not None
    ready, _, _ = select.select([command.stderr], [], [], 10.0)
    if not ready:
        command.kill()
    return command.stderr.readline()


@contextmanager
def dying_unheard(daemon: Daemon) -> Iterator[Path]:
    """A socket before the daemon's, which is killed once it has taken patches in, its answer lost.

    Nobody listens at either from then on.
    """
    path = daemon.folder / "before.sock"

    class Between(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as beyond:
                beyond.connect(str(daemon.socket))
                asked = b""
                while True:
                    ready, _, _ = select.select([self.request, beyond], [], [])
                    other = beyond if self.request in ready else self.request
                    text = (self.request if other is beyond else beyond).recv(1 << 16)
                    asked = asked or text
                    if other is self.request and asked.startswith(b"POST /enqueue"):
                        daemon.kill()
                        path.unlink()
                        return
                    if not text:
                        return
                    other.sendall(text)

    with socketserver.ThreadingUnixStreamServer(str(path), Between) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()
