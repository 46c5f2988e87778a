"""What systemd is told: readiness, progress and a sentence for `systemctl status`.

By hand, because the libraries either lose READY=1 beside a non-Latin status, know no abstract
sockets, or need a compiler. The protocol is sd_notify(3): one datagram of NAME=VALUE lines.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

# systemd drops a datagram over 4096 bytes whole, READY=1 with it.
STATUS_BYTES = 1024

# A full queue at the other end must not stop the event loop for long.
SEND_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Notify:
    """Says nothing where `address` is None. A socket that is gone is not the daemon's trouble.

    `watchdog_s` is how often `watchdog()` should be called: half of what systemd allows.
    """

    address: str | None = None
    watchdog_s: float | None = None

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
