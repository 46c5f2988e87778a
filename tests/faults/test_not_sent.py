"""A request that connected before a gate that was shut meanwhile has not happened."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import PATIENCE_S, start_daemon
from stage import TIMEOUT_S, Vendor, on_stage, virtually

from syncd import log
from syncd.core.answer import NotSent


def test_what_was_not_sent_waits_as_if_it_had_never_been_tried(tmp_path: Path) -> None:
    log.setup("critical")

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            vendor.otherwise = NotSent()
            stage.insert([(f"run {n}", None, '{"v":1}') for n in range(20)])
            while len(vendor.requests) < 40:
                await asyncio.sleep(0.1)
                assert stage.now < TIMEOUT_S, "it is not tried again"
            assert not stage.gate.shut
            assert stage.rows("SELECT sum(attempts) FROM outbox") == [(0,)]
            assert stage.rows("SELECT count(*) FROM lanes") == [(0,)]
            assert stage.rows("SELECT count(*) FROM suspects") == [(0,)]
            vendor.otherwise = None
            await stage.delivered(20, within_s=TIMEOUT_S)
            assert stage.gate.figures().in_flight == 0

    virtually(play())


@contextmanager
def crowded() -> Iterator[socket.socket]:
    """A listener whose line is full: who connects waits until somebody is let in."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        listener.settimeout(PATIENCE_S)
        first.connect(listener.getsockname())
        yield listener


def let_in(listener: socket.socket) -> bytes:
    """What the next one says at first; nothing if it only connects and leaves."""
    with listener.accept()[0] as connection:
        connection.settimeout(PATIENCE_S)
        return connection.recv(4)


def test_a_pause_keeps_back_the_request_that_is_still_connecting(tmp_path: Path) -> None:
    with (
        crowded() as listener,
        start_daemon(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}") as daemon,
    ):
        daemon.insert(("run", "name", None))
        while not daemon.status()["outbox"]["in_flight"]:
            pass
        daemon.syncd("pause")
        listener.accept()[0].close()

        assert let_in(listener) == b""
        while daemon.status()["outbox"]["in_flight"]:
            pass
        assert daemon.rows("SELECT state, attempts FROM outbox") == [("pending", 0)]
        assert daemon.rows("SELECT count(*) FROM lanes") == [(0,)]

        daemon.syncd("resume")
        assert let_in(listener) == b"POST"
