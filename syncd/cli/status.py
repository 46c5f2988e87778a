"""`syncd status`: how things stand, from the daemon or, while it is down, from its files."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from syncd import __version__
from syncd.cli.door import Door, is_there, opened, readers_door
from syncd.cli.options import config_option, json_option
from syncd.cli.screen import screen

NOT_RUNNING = 3
EVERY_S = 1.0

_UNITS = tuple(
    f"{folder}/systemd/system/syncd.service"
    for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)

_EMPTY = {
    "outbox": {
        "pending": 0,
        "deferred": 0,
        "in_flight": 0,
        "held": 0,
        "dead": 0,
        "delivered": 0,
        "discarded": 0,
        "suspect": 0,
        "oldest_pending_s": None,
    },
    "snapshots": {"count": 0},
    "last_error": None,
    "paused": False,
}


@click.command("status")
@click.option("--watch", is_flag=True, help="Again every second, until ^C.")
@json_option
@config_option
def status_command(*, watch: bool, as_json: bool, config_path: str | None) -> int:
    """How things stand, on one screen.

    Is it running, what waits, what is stuck and why, and when will it be done. Exit code 3
    while the daemon is not running.
    """
    to = readers_door(config_path)
    if watch and sys.stdout.isatty() and not as_json:
        return _watch_on_terminal(to)
    while True:
        status = current(to)
        if as_json:
            click.echo(json.dumps(status))
        else:
            click.echo("\n".join(screen(status, time.time(), start=start_command())))
        if not watch:
            return 0 if status["daemon"]["running"] else NOT_RUNNING
        sys.stdout.flush()
        time.sleep(EVERY_S)


def current(to: Door) -> dict[str, Any]:
    """What `status --json` prints, whether the daemon is up or down."""
    return to.status() or offline(to)


def offline(to: Door) -> dict[str, Any]:
    """The same object from the database, the spool and the settings.

    What only a running daemon can know, such as the pace in use, is null.
    """
    from syncd.spool import Spool
    from syncd.store.access import lost
    from syncd.store.lock import daemon_of, is_in_use

    spool = Spool(to.paths.spool, to.config.spool.settle_s, to.config.spool.max_file_bytes)
    files_waiting = spool.waiting()  # first: a daemon that is but unheard may take them in
    pid = daemon_of(to.paths.store)
    known = _database(to)
    paused = known.pop("paused")
    last_error = known.pop("last_error")
    nothing_waits = known["outbox"]["pending"] == 0
    troubles = []
    if pid is None and is_in_use(to.paths.store):
        troubles.append(f"a process holds the database, and {unheard(to.paths.socket)}")
    if why := lost(to.paths.store):
        troubles.append(f"{to.paths.store}: {why}")
    return {
        "daemon": stopped(paused=paused) if pid is None else _unheard(to, pid, paused=paused),
        **known,
        "gate": {
            "limit_per_s": to.config.delivery.rate_per_s,
            "rate_per_s": None,
            "max_in_flight": to.config.delivery.max_in_flight,
            "window": None,
            "closed_until": None,
            "breaker": None,
        },
        "throughput": {"delivered_per_s_1m": 0.0, "requests_per_s_1m": 0.0},
        "eta_s": 0.0 if nothing_waits else None,
        "spool": {"waiting": files_waiting, "rejected": spool.rejected()},
        "last_error": last_error,
        "troubles": troubles,
    }


def is_taken(socket: Path) -> bool:
    """Whether something is in a socket's place that is none: no daemon takes that away."""
    return os.path.lexists(socket) and not socket.is_socket()


def unheard(socket: Path) -> str:
    """Why a daemon that is there does not answer at its socket, and what to do about it."""
    if is_taken(socket):
        return (
            f"none answers at {socket}: what lies there is not a socket: move it away, and the"
            " daemon makes its socket anew within seconds"
        )
    return (
        f"none answers at {socket}: a daemon that has just started, or whose socket was removed,"
        " makes one within seconds; if this lasts, restart it"
    )


def stopped(*, paused: bool) -> dict[str, Any]:
    """What is said of a daemon that is down."""
    from syncd.store.read import instant

    return {
        "running": False,
        "state": "stopped",
        "reason": "an operator has paused sending: it will start paused" if paused else None,
        "pid": None,
        "version": __version__,
        "started_at": None,
        "now": instant(time.time()),
        "moved": False,
    }


def _unheard(to: Door, pid: int, *, paused: bool) -> dict[str, Any]:
    """A daemon that holds the database, and cannot be asked: it may well be sending."""
    return stopped(paused=paused) | {
        "running": True,
        "state": "paused" if paused else "running",
        "reason": ("an operator has paused sending; " if paused else "") + unheard(to.paths.socket),
        "pid": pid,
    }


def start_command() -> str:
    """The command that starts the daemon here: systemd's, if it knows of it."""
    return "systemctl start syncd" if any(map(os.path.exists, _UNITS)) else "syncd run"


def _database(to: Door) -> dict[str, Any]:
    from syncd.store import read
    from syncd.store.schema import open_reader

    if not is_there(to.paths.store):
        return dict(_EMPTY)
    with opened(open_reader, to.paths.store) as db:
        return read.outbox(db, time.time())


def _watch_on_terminal(to: Door) -> int:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            lines = screen(current(to), time.time(), start=start_command())
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            time.sleep(EVERY_S)
