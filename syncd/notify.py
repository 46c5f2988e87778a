"""What systemd is told: readiness, liveness and a sentence for `systemctl status`.

By hand, because the libraries either lose READY=1 beside a non-Latin status, know no abstract
sockets, or need a compiler. The protocol is sd_notify(3): one datagram of NAME=VALUE lines.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import structlog

logger = structlog.get_logger()

# systemd drops a datagram over 4096 bytes whole, READY=1 with it.
STATUS_BYTES = 1024

# A full queue at the other end must not stop the event loop for long.
SEND_TIMEOUT_S = 0.5

EVERY_S = 5.0
STILL_S = 60.0  # where no watchdog says how long nothing may move


@dataclass(frozen=True, slots=True)
class Notify:
    """Says nothing where `address` is None. A socket that is gone is not the daemon's trouble.

    `watchdog_s` is how often `watchdog()` should be called: half of what systemd allows.
    """

    address: str | None = None
    watchdog_s: float | None = None

    @property
    def still_s(self) -> float:
        """How long nothing may move that should: systemd's WatchdogSec, where it is set."""
        return STILL_S if self.watchdog_s is None else 2 * self.watchdog_s

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int | None = None) -> Self:
        """Read $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID; `pid` is ours unless given."""
        address = environ.get("NOTIFY_SOCKET", "")
        # Other families, such as vsock:, are for virtual machines.
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, _watchdog_s(environ, os.getpid() if pid is None else pid))

    def send(self, **fields: str | int) -> bool:
        """Send the fields as one datagram, in order. True if the socket took it; never raises."""
        if self.address is None:
            return False
        path = self.address
        message = "\n".join(f"{name}={_one_line(value)}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.sendto(
                    message.encode(errors="replace"), "\0" + path[1:] if path[0] == "@" else path
                )
        except OSError:
            return False
        return True

    def ready(self, status: str | None = None) -> bool:
        """Start or reload is over."""
        return self.send(READY=1) if status is None else self.send(READY=1, STATUS=status)

    def status(self, text: str) -> bool:
        """One sentence for people."""
        return self.send(STATUS=text)

    def reloading(self) -> bool:
        """A reload begins; `ready()` must follow. systemd tells the two apart by the time sent."""
        return self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self, status: str | None = None) -> bool:
        """A stop begins."""
        return self.send(STOPPING=1) if status is None else self.send(STOPPING=1, STATUS=status)

    def watchdog(self) -> bool:
        """Work moves, or there is none. Does nothing where no watchdog is set."""
        return self.watchdog_s is not None and self.send(WATCHDOG=1)

    def extend(self, seconds: float) -> bool:
        """A start, reload or stop takes that much longer, from now; to be said again in time."""
        return self.send(EXTEND_TIMEOUT_USEC=int(seconds * 1_000_000))


@asynccontextmanager
async def extending(notify: Notify, doing: str) -> AsyncIterator[None]:
    """What is done in the block may take longer than a start or stop usually does."""
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_extend(notify, doing))
        yield
        telling.cancel()


async def _extend(notify: Notify, doing: str) -> None:
    while True:
        notify.send(STATUS=doing, EXTEND_TIMEOUT_USEC=int(3 * EVERY_S * 1_000_000))
        await asyncio.sleep(EVERY_S)


async def tell(notify: Notify, sentence: Callable[[], Awaitable[str]], anew: asyncio.Event) -> None:
    """Keep the sentence beside the unit true, until cancelled.

    `anew` is set when something else has been told meanwhile: then also what has not changed.
    """
    told = None
    while True:
        text = await sentence()
        if text != told or anew.is_set():
            notify.status(text)
        anew.clear()
        told = text
        await asyncio.sleep(EVERY_S)


async def vouch(notify: Notify, stuck: Callable[[], str | None]) -> None:
    """Feed the watchdog until cancelled, but not while `stuck` says why nothing moves.

    It has to say so twice in a row: work that has come just now has not been begun yet.
    """
    before = logged = None
    while True:
        why = stuck()
        if why is None or before is None:
            notify.watchdog()
        if why is None:
            logged = None
        elif before is not None and logged is None:
            logger.error("relay.stuck", why=why, then="the watchdog restarts the service, if set")
            logged = why
        before = why
        await asyncio.sleep(min(EVERY_S, notify.still_s / 6))


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    try:
        every_us = int(environ["WATCHDOG_USEC"])
        ours = int(environ.get("WATCHDOG_PID") or pid) == pid
    except (KeyError, ValueError):
        return None
    return every_us / 2_000_000 if ours and every_us > 0 else None


def _one_line(value: str | int) -> str:
    """A line break would begin another field."""
    text = " ".join(str(value).split()).encode(errors="replace")
    return text[:STATUS_BYTES].decode(errors="ignore")
