"""The test stand: vendors and daemons as processes, each ended by its id when its block ends."""

import json
import select
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from syncd.store.schema import open_writer
from tests.benchmarks.rows import Row, rows
from tests.processes import Daemon

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
LOOK_S = 0.01
IN_FLIGHT = 64
WARM_UP = 500
FAST: Mapping[str, object] = {"rate_per_s": 100_000.0, "max_in_flight": IN_FLIGHT, "fold": False}


class Vendor:
    """A running `tests.benchmarks.vendor`."""

    def __init__(self, port: int, tls_port: int | None) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self.url = f"https://127.0.0.1:{tls_port}/v1" if tls_port else f"{self._address}/v1"

    def reset(self, **settings: float) -> dict[str, Any]:
        """Begin new books with these settings."""
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        return self._ask(f"/_bench/reset?{query}")

    def books(self) -> dict[str, Any]:
        """What came in since."""
        return self._ask("/_bench/books")

    def _ask(self, target: str) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._address + target, timeout=10) as answer:
            books: dict[str, Any] = json.load(answer)
            return books


@contextmanager
def vendor(certificate: Path | None = None, **settings: float) -> Iterator[Vendor]:
    """A vendor in a process of its own; with a certificate (and its key) it speaks https."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.vendor", *([certificate] if certificate else [])],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 20)
        ports = process.stdout.readline().split() if ready else []
        if not ports:
            raise RuntimeError("the vendor did not get ready")
        running = Vendor(int(ports[0]), int(ports[1]) if certificate else None)
        running.reset(**settings)
        yield running
    finally:
        process.kill()
        process.wait()


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    file = folder / "certificate"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", file, "-out", file.with_suffix(".public")),
        ],
        check=True,
        capture_output=True,
    )
    with file.open("a") as both:
        both.write(file.with_suffix(".public").read_text())
    return file


@contextmanager
def daemon(
    folder: Path,
    url: str,
    *,
    start: bool = True,
    trusting: Path | None = None,
    **delivery: object,
) -> Iterator[Daemon]:
    """A daemon that delivers as fast as it can, unless `delivery` says otherwise."""
    it = Daemon(
        folder,
        url,
        delivery={**FAST, **delivery},
        api={"timeout_s": 30.0},
        log={"level": "warning"},
    )
    with it:
        trusted = {"SSL_CERT_FILE": str(trusting.with_suffix(".public"))} if trusting else {}
        yield it.start(**trusted) if start else it


def bare(url: str, count: int) -> dict[str, float]:
    """One run of the bare loop."""
    took: dict[str, float] = json.loads(
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.bare", url, str(count), str(IN_FLIGHT)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        ).stdout
    )
    return took


def insert(database: Path, work: Sequence[Row]) -> float:
    """INSERT patches in one transaction, as any producer would; the instant before its COMMIT."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)", work
        )
        at = time.monotonic()
        db.execute("COMMIT")
    return at


def warm_up(daemon: Daemon) -> int:
    """Deliver a few patches; returns how many are delivered then, those from before included."""
    delivered = count(daemon.database, "delivered") + WARM_UP
    insert(daemon.database, rows(WARM_UP, seed=-delivered))
    wait_for(daemon.database, "delivered", delivered)
    return delivered


def create(database: Path) -> None:
    """An empty database where the daemon will look for it."""
    open_writer(database).close()


def count(database: Path, state: str) -> int:
    """How many patches there are in a state."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        (n,) = db.execute("SELECT n FROM counters WHERE state = ?", (state,)).fetchone()
    return int(n)


def wait_for(database: Path, state: str, wanted: int) -> float:
    """The instant at which there are so many patches in a state."""
    uri = f"{database.as_uri()}?mode=ro"
    until = time.monotonic() + PATIENCE_S
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as db:
        while time.monotonic() < until:
            (n,) = db.execute("SELECT n FROM counters WHERE state = ?", (state,)).fetchone()
            if n >= wanted:
                return time.monotonic()
            time.sleep(LOOK_S)
    raise TimeoutError(f"{database}: fewer than {wanted} {state} after {PATIENCE_S} s")
