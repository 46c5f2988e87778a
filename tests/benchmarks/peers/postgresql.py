"""A PostgreSQL of the benchmark's own: Debian's programs, default settings, a throw-away folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.record import NotHere

PATIENCE_S = 60


@contextmanager
def postgresql() -> Iterator[str]:
    """A server on a socket in a folder of its own; yields how to connect to it."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="syncd-bench-pg-"))
    data = folder / "data"
    # It refuses to run as root; Debian's package has made a user for it.
    own = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    try:
        if own:
            shutil.chown(folder, "postgres")
        control = [*own, str(programs / "pg_ctl"), "--pgdata", str(data)]
        options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        start = ["--wait", "--log", str(folder / "log"), "--options", options, "start"]
        _run([*own, str(programs / "initdb"), "--auth=trust", "--username=peer", str(data)])
        _run([*control, *start])
        try:
            yield f"host={folder} user=peer dbname=postgres"
        finally:
            _run([*control, "--mode=fast", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Where the newest one is that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    if not found:
        raise NotHere("there is no PostgreSQL on this machine: apt install postgresql")
    return found[-1].parent


def _run(command: list[str]) -> None:
    # Its output must not be a pipe: the server inherits it and keeps it open.
    try:
        subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=PATIENCE_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise NotHere(f"PostgreSQL does not start: {error}") from error
