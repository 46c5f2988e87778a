"""HTTP to the daemon over its unix socket; what goes wrong there is one line for a person."""

import errno
import grp
import http.client
import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from syncd.errors import SyncdError

TIMEOUT_S = 5.0  # silence of the daemon, in readers
READ_BYTES = 64 << 10
PATIENT_S = 600.0  # where it may have a lot to write, or waits for another writer

# Nobody listens: the daemon is down, or never was.
_DOWN = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}


class WentAway(SyncdError):
    """The daemon stopped in the middle of an exchange: asking again may help."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: {advice}")
        self.what = what


class Down(WentAway):
    """Nobody is there any more to be asked."""


class Mute(WentAway):
    """Somebody is there and does not answer in time: stuck, or halted, or very busy.

    It may still do what it was asked for.
    """


@dataclass(frozen=True, slots=True)
class Wire:
    """The daemon's control socket."""

    path: Path
    silence_s: float = TIMEOUT_S
    """Of the daemon, in readers."""

    def answers(self) -> bool:
        """Whether somebody listens."""
        connection = self._connect(self.silence_s)
        if connection is None:
            return False
        connection.close()
        return True

    def ask(
        self, method: str, target: str, body: bytes = b"", *, timeout: float | None = None
    ) -> bytes | None:
        """The body of a good answer; None if the daemon is down.

        Raises SyncdError in the daemon's own words where it refuses.
        """
        timeout = self.silence_s if timeout is None else timeout
        with self.asked(method, target, body, timeout=timeout) as asked:
            return None if asked is None else asked.answer()

    @contextmanager
    def asked(
        self, method: str, target: str, body: bytes, *, timeout: float
    ) -> "Iterator[Asked | None]":
        """The same in two: the request has been sent; whoever leaves the block hangs up."""
        connection = self._connect(timeout)
        if connection is None:
            yield None
            return
        with closing(connection), self._told(timeout):
            connection.request(method, target, body or None)
            yield Asked(connection)

    @contextmanager
    def kept_open(self, target: str, line: bytes, *, timeout: float) -> Iterator[bytes | None]:
        """The first line of the answer to a request that stays open for the length of the block.

        It ends with this process too, however that ends. None if the daemon is down.
        """
        connection = self._connect(timeout)
        if connection is None:
            yield None
            return
        with closing(connection):
            with self._told(timeout):
                connection.putrequest("POST", target)
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
                connection.send(b"%x\r\n%s\r\n" % (len(line), line))
                first = _answer(connection).readline()
            yield first

    def lines(self, target: str, *, missing: bool = False) -> Iterator[bytes] | None:
        """The lines of a good answer, as they come; None if the daemon is down.

        With `missing`, a 404 is an answer without lines.
        """
        connection = self._connect(self.silence_s)
        return None if connection is None else self._lines(connection, target, missing=missing)

    def _lines(
        self, connection: http.client.HTTPConnection, target: str, *, missing: bool
    ) -> Iterator[bytes]:
        with closing(connection), self._told(self.silence_s):
            try:
                answer = _exchange(connection, "GET", target, b"")
            except _Missing:
                if missing:
                    return
                raise
            yield from filter(None, _lines_of(answer))

    def _connect(self, timeout: float) -> http.client.HTTPConnection | None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        end.settimeout(timeout)
        try:
            end.connect(os.fspath(self.path))
        except OSError as error:
            end.close()
            if error.errno in _DOWN:
                return None
            raise self._unreachable(error) from error
        connection = http.client.HTTPConnection("syncd", timeout=timeout)
        connection.sock = end
        return connection

    def _unreachable(self, error: OSError) -> SyncdError:
        if error.errno not in (errno.EACCES, errno.EPERM):
            # A queue of connections that nobody takes is full: at once, or for as long as we wait.
            what = f"{self.path}: {error.strerror or error}"
            if isinstance(error, (BlockingIOError, TimeoutError)):
                return Mute(what, "is the daemon stuck?")
            return SyncdError(f"{what}: is the daemon stuck?")
        return SyncdError(
            f"{self.path}: permission denied: only root and members of the group"
            f" {_group_of(self.path)} may talk to this daemon"
        )

    @contextmanager
    def _told(self, timeout: float) -> Iterator[None]:
        """Failures in the middle of an exchange, as errors that say so."""
        try:
            yield
        except TimeoutError as error:
            raise Mute(
                f"{self.path}: the daemon does not answer within {timeout:.3g} s", "look at its log"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise WentAway(
                f"{self.path}: the daemon went away before its answer was whole",
                "look with `syncd status`, then try again",
            ) from error


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose answer is still to come."""

    _connection: http.client.HTTPConnection

    def is_answered(self, within_s: float) -> bool:
        """Wait for the answer to begin. Nothing of it is lost if this is broken off."""
        return bool(select.select([self._connection.sock], [], [], within_s)[0])

    def answer(self) -> bytes:
        """The body of a good answer, as `ask` has it."""
        return _answer(self._connection).read()


class _Missing(SyncdError):
    """The daemon answers, and has no such thing."""


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes
) -> http.client.HTTPResponse:
    connection.request(method, target, body or None)
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    answer = connection.getresponse()
    if answer.status >= 400:
        raise (_Missing if answer.status == 404 else SyncdError)(_refusal(answer))
    return answer


def _lines_of(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The lines as they come. Empty ones are signs of life while the daemon searches."""
    begun: list[bytes] = []
    while some := answer.read1(READ_BYTES):
        end, *others = some.split(b"\n")
        begun.append(end)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    yield b"".join(begun)


def _refusal(answer: http.client.HTTPResponse) -> str:
    body = answer.read()
    try:
        return " ".join(str(json.loads(body)["error"]).split())
    except (ValueError, KeyError, TypeError):
        return f"the daemon answers HTTP {answer.status}: is it another version of syncd?"


def _group_of(path: Path) -> str:
    """The group of the socket, or of the first folder above it that we may look at."""
    for place in (path, *path.parents):
        try:
            group = place.stat().st_gid
        except OSError:
            continue
        try:
            return grp.getgrgid(group).gr_name
        except KeyError:
            return str(group)
    return "of the daemon"
