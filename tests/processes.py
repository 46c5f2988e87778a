"""syncd as its users run it: the daemon, the sandbox and the commands as processes of their own.

Everything lives in a folder of the test's own and ends with its `with` block, by process id:

    with start_sandbox(tmp_path) as sandbox, start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("enqueue", "run_1", "--name", "first")
        daemon.syncd("wait", "--all", "--timeout", "10")
        assert sandbox.runs()["run_1"]["name"] == "first"
"""

import fcntl
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from zygote import Forked, Zygote

TOKEN = "sandbox-token"  # what a sandbox takes unless told otherwise
PATIENCE_S = 20.0  # for what takes a moment on an idle machine

zygote: "Zygote | None" = None
"""Starts syncd where it can, if there is one; else each start is like a user's."""

# Quick settings for tests; `start_daemon(..., retry={"base_s": 1.0})` changes one of them.
QUICK: Mapping[str, Mapping[str, object]] = {
    "api": {"timeout_s": 2.0},
    "delivery": {"rate_per_s": 500.0, "max_in_flight": 16, "drain_s": 3.0},
    "retry": {"base_s": 0.05, "cap_s": 0.5},
    "spool": {"settle_s": 0.1},
}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which syncd keeps everything below `folder`; nothing else is inherited."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_STATE_HOME": str(folder / "state"),
        "LANG": "C.UTF-8",
        **more,
    }


def syncd(
    *arguments: str | os.PathLike[str],
    folder: Path,
    input: str | bytes | None = None,
    timeout: float = PATIENCE_S,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, without a terminal. Its output comes back as text."""
    words = [os.fspath(argument) for argument in arguments]
    text = input.encode() if isinstance(input, str) else input or b""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(text)
        stdin.seek(0)
        process = _started(words, environment(folder, **variables), folder, (stdin, stdout, stderr))
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        said = [_read(output) for output in (stdout, stderr)]
    return subprocess.CompletedProcess(words, code, *said)


def _started(
    arguments: Sequence[str], env: dict[str, str], folder: Path, streams: Sequence[IO[bytes] | int]
) -> "Forked | subprocess.Popen[bytes]":
    if zygote is not None and zygote.can_start(env):
        fds = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
        return zygote.start(arguments, env, folder, fds)
    command = [sys.executable, "-m", "syncd", *arguments]
    stdin, stdout, stderr = streams
    return subprocess.Popen(command, env=env, cwd=folder, stdin=stdin, stdout=stdout, stderr=stderr)


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode()


class Running:
    """A child process whose output goes to NAME.log in its folder."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        env: dict[str, str],
        stdout: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.output = folder / f"{name}.log"
        with self.output.open("ab") as output, open(os.devnull, "rb") as stdin:
            streams = (stdin, output if stdout is None else stdout, output)
            self._process = _started(arguments, env, folder, streams)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -9 after a kill."""
        return self._process.poll()

    def log(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")

    def stop(self, timeout: float = PATIENCE_S) -> int:
        """SIGTERM, and its exit code. Killed, and a failure, if it does not heed that."""
        if self.exit_code is None:
            self._process.terminate()
        return self.ended(timeout)

    def ended(self, timeout: float = PATIENCE_S) -> int:
        """Wait until it ends by itself."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end in {timeout} s:\n{self.log()}") from None

    def kill(self) -> None:
        """SIGKILL, at once; it has ended when this returns."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


@contextmanager
def in_use(database: Path) -> Iterator[None]:
    """The lock of a database is taken, as by an operator's verb or a daemon."""
    with open(f"{database}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def until_it_waits_for(database: Path, running: Running) -> None:
    """Until a process has the lock of a database open, which somebody else holds."""
    lock = f"{database}.lock"
    deadline = time.monotonic() + PATIENCE_S
    while lock not in opened_by(running.pid):
        assert running.exit_code is None, running.log()
        assert time.monotonic() < deadline, f"{running.name} never came to {lock}"


def opened_by(pid: int) -> Iterator[str]:
    """The paths that a process has open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(link.readlink())


class Sandbox:
    """A running `syncd sandbox`, and its books."""

    def __init__(self, running: Running, address: str) -> None:
        self.running = running
        self.address = address
        """Where it listens; `url` is what a client of v1 is given."""

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def base_url(self, version: str) -> str:
        """What `api.base_url` must be for a generation of the API."""
        return self.url if version == "v1" else self.address

    def runs(self) -> dict[str, dict[str, Any]]:
        """The state of every run that was updated: {id: {"name": …, "metadata": {…}}}."""
        runs: dict[str, dict[str, Any]] = self._ask("/_sandbox/state")["runs"]
        return runs

    def stats(self) -> dict[str, Any]:
        """Its counts: requests, by_status, faults, max_in_flight_per_run …"""
        stats: dict[str, Any] = self._ask("/_sandbox/stats")
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """The last 10,000 requests, oldest first."""
        requests: list[dict[str, Any]] = self._ask("/_sandbox/requests")
        return requests

    def change(self, **settings: object) -> None:
        """Another `token`, `faults`, `rate` or `latency_s` from now on."""
        self._ask("/_sandbox/settings", json.dumps(settings).encode())

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        # A proxy of the environment must not come between two processes of this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.address}{path}", body, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running.exit_code is None:
            self.running.kill()


def start_sandbox(folder: Path, *options: str, name: str = "sandbox") -> Sandbox:
    """Start `syncd sandbox` with these options on a free port; it listens when this returns."""
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as stdout:
        try:
            running = Running(name, ["sandbox", *options], folder, environment(folder), writing)
        finally:
            os.close(writing)
        ready, _, _ = select.select([stdout], [], [], PATIENCE_S)
        address = stdout.readline().strip() if ready else ""
    if not address:
        running.kill()
        raise AssertionError(f"{name} is not ready:\n{running.log()}")
    return Sandbox(running, address)


class Daemon:
    """A daemon on a folder of its own. It can be killed and started again on what it left."""

    def __init__(self, folder: Path, url: str, **config: Mapping[str, object]) -> None:
        self.folder = folder
        self.config = folder / "syncd.toml"
        self.configure(url, **config)
        self.environment = {"SYNCD_CONFIG": str(self.config), "SYNCD_API__TOKEN": TOKEN}
        self.running: Running | None = None

    @property
    def database(self) -> Path:
        return self.folder / "state" / "syncd" / "syncd.db"

    @property
    def socket(self) -> Path:
        return self.folder / "state" / "syncd" / "syncd.sock"

    @property
    def spool(self) -> Path:
        return self.folder / "state" / "syncd" / "spool"

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def configure(self, url: str, **config: Mapping[str, object]) -> None:
        """Write the configuration: `url`, QUICK, and what is given on top of that."""
        sections: dict[str, dict[str, object]] = {"api": {"base_url": url}}
        for part in (QUICK, config):
            for section, keys in part.items():
                sections.setdefault(section, {}).update(keys)
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for section, keys in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(it)}" for key, it in keys.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, **variables: str) -> Self:
        """Start it; it is ready, as it tells systemd, when this returns."""
        told = self.folder / "notify.sock"
        told.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(told))
            notified.settimeout(0.2)
            env = environment(self.folder, **self.environment, NOTIFY_SOCKET=str(told), **variables)
            self.running = Running("daemon", ["run"], self.folder, env)
            deadline = time.monotonic() + PATIENCE_S
            while self.running.exit_code is None and time.monotonic() < deadline:
                try:
                    if b"READY=1" in notified.recv(4096):
                        return self
                except TimeoutError:
                    continue
        self.kill()
        raise AssertionError(f"the daemon did not get ready:\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.running is not None
        return self.running.stop()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.running is not None
        self.running.kill()

    def log(self) -> str:
        """What it has logged, all its lives together."""
        return self.running.log() if self.running else ""

    def syncd(
        self,
        *arguments: str | os.PathLike[str],
        input: str | bytes | None = None,
        timeout: float = PATIENCE_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command for this daemon, whether it is up or down."""
        return syncd(
            *arguments, folder=self.folder, input=input, timeout=timeout, **self.environment
        )

    def status(self) -> dict[str, Any]:
        """`syncd status --json`."""
        status: dict[str, Any] = json.loads(self.syncd("status", "--json").stdout)
        return status

    def drop(self, name: str, content: str | bytes) -> Path:
        """Put a patch file into the spool as the contract has it: written aside, then renamed."""
        incoming = self.spool / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        draft = incoming / f".{name}.tmp"
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        return draft.rename(incoming / name)

    def insert(self, *rows: tuple[str, str | None, str | None]) -> None:
        """INSERT (run, name, metadata) rows in one transaction, as any producer would."""
        db = sqlite3.connect(self.database, timeout=PATIENCE_S)
        try:
            with db:
                db.executemany(
                    "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)", rows
                )
        finally:
            db.close()

    def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """What a query of the database gives, read-only."""
        db = sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)
        try:
            return db.execute(sql, arguments).fetchall()
        finally:
            db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running is not None and self.running.exit_code is None:
            self.running.kill()


def start_daemon(folder: Path, url: str, **config: Mapping[str, object]) -> Daemon:
    """Start a daemon that sends to `url`; sections of its configuration are given by name."""
    return Daemon(folder, url, **config).start()
