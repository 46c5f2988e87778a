"""Following README.md: its examples, and a shell and a home of their own to try them in."""

import os
import re
import select
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from processes import PATIENCE_S, Sandbox, environment, start_sandbox

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)

# What the page calls its reader's home, the sandbox's port and the token.
HOME, PORT, TOKEN = "/home/you", "8321", "rehearsal"

# Not run: they would fetch packages, or are slow, or need root, as tests/systemd/booted has it.
LEFT_OUT = ("make ", "python3 -m venv ", "~/syncd-venv/bin/pip install ", "sudo ", "systemctl ")
NOTHING = Path(os.devnull)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file that it is saved as, its text and its first line."""

    language: str
    file: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Example:
    """A command and what it prints."""

    command: str
    prints: str
    line: int

    def __str__(self) -> str:
        return f"README.md:{self.line}: {self.command}"


def blocks() -> list[Block]:
    fence = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
    return [
        Block(found[1], found[2] or "", found[3], README.count("\n", 0, found.start(3)) + 1)
        for found in fence.finditer(README)
    ]


def examples(block: Block) -> Iterator[Example]:
    parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", block.text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"README.md:{block.line}: begins with output"
    line = block.line
    for command, prints in zip(parts[1::2], parts[2::2], strict=True):
        yield Example(command, prints, line)
        line += 1 + command.count("\n") + prints.count("\n")


BLOCKS = blocks()
FILES = [block for block in BLOCKS if block.file]
EXAMPLES = [
    example for block in BLOCKS if block.language == "console" for example in examples(block)
]
RUN = [example for example in EXAMPLES if not example.command.startswith(LEFT_OUT)]


class Shell:
    """One POSIX shell in a home of its own, as a reader of the README has it open."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._printed = folder / "printed"
        self._process = subprocess.Popen(
            ["/bin/sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=env["HOME"],
            env=env,
            start_new_session=True,
        )

    def run(self, command: str, stdin: Path = NOTHING) -> str:
        """What one command prints, on both its outputs. What it exports, later ones see."""
        self._ask(f"{{ {command}\n}} <{stdin} >{self._printed} 2>&1\necho done\n")
        return self._printed.read_text()

    def start(self, command: str, output: Path, **env: str) -> str:
        """Start a command in the background; its process id."""
        variables = " ".join(f"{name}={value}" for name, value in env.items())
        return self._ask(f"{variables} {command} <{NOTHING} >{output} 2>&1 & echo $!\n")

    def _ask(self, lines: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(lines.encode())
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert ready, f"not done in {PATIENCE_S} s: {lines}"
        return self._process.stdout.readline().decode().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # whatever it may have left behind, too
        self._process.communicate()


class Reader:
    """Follows README.md from the first example to the last."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        env = environment(folder, SYNCD_LOG__FORMAT="console")
        del env["XDG_STATE_HOME"]
        env["PATH"] = f"{_tools(folder / 'bin')}:{env['PATH']}"
        self.home = Path(env["HOME"])
        self.state = self.home / ".local/state/syncd"
        self._shell = stack.enter_context(Shell(folder, env))
        self._clipboard = folder / "clipboard"
        self._clipboard.write_text(f"{TOKEN}\n")
        self.sandbox: Sandbox | None = None
        self._daemon_pid = ""
        self.printed: dict[int, str] = {}
        """By line of the README."""

    def read(self) -> Self:
        for block in BLOCKS:
            if block.file:
                self._save(block)
        for example in RUN:
            self.printed[example.line] = self._theirs(self._follow(example.command))
        return self

    def demo(self) -> str:
        """A small one."""
        return self._shell.run("syncd demo --patches 60")

    def stop_the_daemon(self) -> str:
        """By SIGTERM; its exit code."""
        return self._shell.run(f"kill {self._daemon_pid}; wait {self._daemon_pid}; echo $?").strip()

    def outbox(self, columns: str) -> list[tuple[Any, ...]]:
        """Rows in arrival order."""
        with closing(sqlite3.connect(self.state / "syncd.db")) as db:
            return db.execute(f"SELECT {columns} FROM outbox ORDER BY id").fetchall()

    def _save(self, block: Block) -> None:
        path = self.home / block.file.removeprefix("~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text.replace(HOME, str(self.home)))

    def _follow(self, command: str) -> str:
        if command.startswith("syncd sandbox "):
            options = shlex.split(command.replace(PORT, "0"))[2:]
            self.sandbox = self._stack.enter_context(start_sandbox(self._folder, *options))
            return f"{self.sandbox.address}\n"
        if command == "syncd run":
            return self._start_the_daemon(command)
        if self.sandbox is not None:
            command = command.replace(PORT, self.sandbox.address.rpartition(":")[2])
        pasted = self._clipboard if "cat >" in command else NOTHING
        return self._shell.run(command.replace(HOME, str(self.home)), pasted)

    def _start_the_daemon(self, command: str) -> str:
        told, log = self._folder / "notify.sock", self._folder / "daemon.log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(told))
            notified.settimeout(PATIENCE_S)
            self._daemon_pid = self._shell.start(command, log, NOTIFY_SOCKET=str(told))
            try:
                while b"READY=1" not in notified.recv(4096):
                    pass  # what it says of itself while it starts
            except TimeoutError:
                raise AssertionError(f"not ready:\n{log.read_text()}") from None
        return log.read_text()

    def _theirs(self, text: str) -> str:
        """What was printed here as the README has it."""
        text = text.replace(str(self.home), HOME)
        return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{PORT}", text)


# For machines without the sqlite3 shell.
SQLITE3 = """
import sqlite3, sys
path, *statement = [each for each in sys.argv[1:] if each not in ("-cmd", ".timeout 10000")]
db = sqlite3.connect(path, isolation_level=None)
try:
    db.execute(statement[0] if statement else sys.stdin.read())
except sqlite3.Error as error:
    sys.exit(f"Error: {error}")
"""


def _tools(folder: Path) -> Path:
    """A folder for PATH with this syncd, this Python, and a sqlite3 if the machine has none."""
    folder.mkdir()
    commands = {"syncd": "-m syncd", "python3": ""}
    if shutil.which("sqlite3") is None:
        (folder / "sqlite_shell.py").write_text(SQLITE3)
        commands["sqlite3"] = str(folder / "sqlite_shell.py")
    for name, arguments in commands.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
