"""Messages to systemd, as a real datagram socket receives them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from syncd.notify import Notify


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Stands for systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(5)
        yield receiver


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with manager(address) as receiver:
        yield receiver


@pytest.fixture
def notify(address: str) -> Notify:
    return Notify.from_environ({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})


def test_readiness_and_status_are_one_datagram(notify: Notify, systemd: socket.socket) -> None:
    assert notify.ready("3 patches wait")

    assert systemd.recv(8192) == b"READY=1\nSTATUS=3 patches wait"


def test_a_status_in_any_script_arrives(notify: Notify, systemd: socket.socket) -> None:
    assert notify.status("ждёт 3 патча — läuft")

    assert systemd.recv(8192).decode() == "STATUS=ждёт 3 патча — läuft"


def test_a_status_cannot_begin_another_field(notify: Notify, systemd: socket.socket) -> None:
    notify.status("trouble:\nMAINPID=1\r\n\x00 x")

    assert systemd.recv(8192) == b"STATUS=trouble: MAINPID=1 \x00 x"


def test_readiness_survives_a_status_of_any_length(notify: Notify, systemd: socket.socket) -> None:
    """systemd drops a datagram over 4096 bytes whole."""
    notify.ready("ä" * 5000 + "\udcff")

    message = systemd.recv(65536)
    assert len(message) < 4096
    assert message.startswith(b"READY=1\nSTATUS=\xc3\xa4")
    assert message.decode()


def test_a_reload_carries_the_time_of_the_monotonic_clock(
    notify: Notify, systemd: socket.socket
) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    reloading, stamp = systemd.recv(8192).decode().splitlines()
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= after


def test_the_other_messages(notify: Notify, systemd: socket.socket) -> None:
    notify.ready()
    notify.stopping()
    notify.stopping("draining")
    notify.watchdog()
    notify.extend(2.5)
    notify.send(FDSTORE=1, FDNAME="x")

    assert [systemd.recv(8192) for _ in range(6)] == [
        b"READY=1",
        b"STOPPING=1",
        b"STOPPING=1\nSTATUS=draining",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=2500000",
        b"FDSTORE=1\nFDNAME=x",
    ]


def test_an_abstract_socket_is_reached() -> None:
    address = f"@syncd-test-{uuid4()}"
    with manager(address) as systemd:
        assert Notify.from_environ({"NOTIFY_SOCKET": address}).ready()

        assert systemd.recv(8192) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nothing_is_sent(environ: dict[str, str]) -> None:
    notify = Notify.from_environ(environ | {"WATCHDOG_USEC": "1000000"})

    assert notify == Notify()
    assert not notify.ready("fine")
    assert not notify.watchdog()


def test_a_socket_that_is_gone_is_not_an_error(notify: Notify, address: str) -> None:
    assert not notify.ready()

    with manager(address):
        pass
    assert not notify.watchdog()

    Path(address).unlink()
    assert not notify.stopping()


def test_an_address_no_socket_can_have_is_not_an_error() -> None:
    assert not Notify("/" + "x" * 200).ready()


def test_a_manager_that_does_not_read_does_not_hold_the_daemon(
    notify: Notify, systemd: socket.socket
) -> None:
    filled = threading.Event()

    def fill() -> None:
        while notify.status("x"):
            pass
        filled.set()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()

    assert filled.wait(10)
    thread.join()


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked_if_it_is_ours(
    environ: dict[str, str], every_s: float | None
) -> None:
    notify = Notify.from_environ({"NOTIFY_SOCKET": "/run/n"} | environ, pid=42)

    assert notify.watchdog_s == every_s
