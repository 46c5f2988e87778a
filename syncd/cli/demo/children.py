"""The demo's sandbox and daemon: processes of their own, which end with the demo."""

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from syncd.cli.wire import Wire
from syncd.errors import SyncdError

PATIENCE_S = 20.0
GRACE_S = 5.0
LOOK_EVERY_S = 0.05
RATE_PER_S = 60  # of the sandbox; the daemon stays below it
TOKEN = "made-up-for-the-demo"  # noqa: S105  it opens nothing but the demo's own sandbox

# A fifth of all requests fails, each in a way of its own. What hangs costs a timeout each.
FAULTS = (
    "500=0.04,503=0.03,429=0.01,drop=0.04,drop_after=0.04,garbage=0.03,slow=0.02,hang=0.01,"
    "slow_s=0.5"
)


@contextmanager
def sandbox(folder: Path) -> Iterator[str]:
    """A sandbox with faults switched on; yields where it listens."""
    arguments = ["sandbox", "--token", TOKEN, "--rate", str(RATE_PER_S), "--faults", FAULTS]
    arguments += ["--seed", "1", "--state", str(folder / "sandbox.json")]
    with _child(folder, arguments, "sandbox.log", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise SyncdError(f"the sandbox did not start: {_last_line(folder, 'sandbox.log')}")
        yield line.decode().strip()


def books(url: str, what: str) -> Any:
    """The sandbox's own books: `stats` or `state`."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=PATIENCE_S)) as connection:
        connection.request("GET", f"/_sandbox/{what}")
        return json.load(connection.getresponse())


def configure(folder: Path, url: str) -> Path:
    """Write the daemon's configuration; everything that it keeps is in the folder."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    settings: dict[str, dict[str, object]] = {
        "api": {"base_url": f"{url}/v1", "token_file": str(token), "timeout_s": 2.0},
        "delivery": {"rate_per_s": RATE_PER_S - 10.0, "max_in_flight": 8, "drain_s": 3.0},
        "retry": {"base_s": 0.2, "cap_s": 2.0},
        "store": {"path": str(folder / "syncd.db")},
        "spool": {"path": str(folder / "spool"), "settle_s": 0.5},
        "control": {"socket": str(folder / "syncd.sock")},
    }
    lines = []
    for section, keys in settings.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(it)}" for key, it in keys.items()), ""]
    path = folder / "syncd.toml"
    path.write_text("\n".join(lines))
    return path


@contextmanager
def daemon(folder: Path, config: Path) -> Iterator[Wire]:
    """A daemon with that configuration, ready; yields its socket."""
    with _child(folder, ["run", "--config", str(config)], "daemon.log") as process:
        wire = Wire(folder / "syncd.sock")
        deadline = time.monotonic() + PATIENCE_S
        while not ((folder / "spool" / "incoming").is_dir() and wire.answers()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SyncdError(f"the daemon did not start: {_last_line(folder, 'daemon.log')}")
            time.sleep(LOOK_EVERY_S)
        yield wire


@contextmanager
def _child(
    folder: Path, arguments: list[str], log: str, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("ab") as output:
        process = _start(folder, arguments, output, stdout)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(
    folder: Path, arguments: list[str], log: BinaryIO, stdout: int | None
) -> subprocess.Popen[bytes]:
    # Whatever syncd is configured to do on this machine is none of the demo's business.
    ours = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SYNCD_") and name not in ours
    }
    return subprocess.Popen(  # noqa: S603  nothing in it comes from outside
        [sys.executable, "-m", "syncd", *arguments],
        env=environ | {"XDG_STATE_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=log if stdout is None else stdout,
        stderr=log,
        start_new_session=True,  # ^C is for the demo, which ends them in order
    )


def _last_line(folder: Path, log: str) -> str:
    lines = (folder / log).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
