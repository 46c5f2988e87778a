"""What the daemon tells systemd, and when: as a process, against a real notify socket."""

import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import PATIENCE_S, Sandbox, start_sandbox
from supervisor import Supervisor, supervised
from threads import all_but_the_first_stopped

WATCHDOG_S = 0.4
WATCHDOG = {"WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000))}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with start_sandbox(tmp_path) as it:
        yield it


@pytest.fixture
def systemd(tmp_path: Path, sandbox: Sandbox) -> Iterator[Supervisor]:
    with supervised(tmp_path, sandbox.url) as it:
        yield it


def events(systemd: Supervisor, name: str) -> list[dict[str, object]]:
    lines = [line for line in systemd.daemon.log().splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == name]


def logged(systemd: Supervisor, name: str) -> dict[str, object]:
    """The first event of that name, waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := events(systemd, name)):
        assert time.monotonic() < deadline, systemd.daemon.log()
        time.sleep(0.01)
    return found[0]


# Start


def test_it_is_ready_when_store_socket_and_watch_are_up(systemd: Supervisor) -> None:
    systemd.start().heard("READY")

    daemon = systemd.daemon
    assert daemon.database.exists()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
    watched = []
    for info in Path(f"/proc/{daemon.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # a connection that has ended meanwhile
            watched += [line for line in info.read_text().splitlines() if "inotify " in line]
    assert len(watched) == 2  # the database's log, and the spool's incoming/


def test_it_is_not_ready_while_the_spool_cannot_be_watched(systemd: Supervisor) -> None:
    systemd.daemon.spool.parent.mkdir(parents=True)
    systemd.daemon.spool.write_text("in the way")
    systemd.start().heard("STATUS=starting: preparing the spool")

    assert systemd.hears("READY", 1.0) == 0

    systemd.daemon.spool.unlink()
    systemd.heard("READY")


def test_ready_comes_with_a_sentence(systemd: Supervisor) -> None:
    assert systemd.start().heard("READY")["STATUS"] == "nothing waits, 0 patches delivered"


def test_a_long_opening_of_the_database_is_announced(systemd: Supervisor) -> None:
    message = systemd.start().heard("STATUS=starting: opening the database")

    assert int(message["EXTEND_TIMEOUT_USEC"]) >= 10_000_000


def test_a_stop_before_it_is_ready_is_heeded(systemd: Supervisor) -> None:
    systemd.daemon.spool.parent.mkdir(parents=True)
    systemd.daemon.spool.write_text("in the way")
    systemd.start().heard("STATUS=starting: preparing the spool")

    assert systemd.daemon.stop() == 0


# The sentence


def test_the_sentence_follows_what_happens(systemd: Supervisor) -> None:
    systemd.start().heard("READY")

    systemd.daemon.syncd("pause")
    systemd.daemon.syncd("enqueue", "run_1", "--name", "x")

    said = systemd.heard("STATUS=1 patch to deliver")["STATUS"]
    assert said.startswith("paused: an operator has paused sending: syncd resume; ")


def test_the_sentence_tells_of_a_socket_in_the_place_of_its_own(systemd: Supervisor) -> None:
    """Commands take such a daemon for one that is down."""
    systemd.start().heard("READY")

    path = systemd.daemon.socket
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(f"{path}.another")
        path.with_name(f"{path.name}.another").rename(path)

        systemd.heard(f"STATUS=no command can get here: {path} is another process's")


# Reload


def test_a_reload_takes_over_what_it_can_and_names_what_needs_a_restart(
    systemd: Supervisor, sandbox: Sandbox
) -> None:
    daemon = systemd.start().daemon
    systemd.heard("READY")
    daemon.configure(
        sandbox.url,
        delivery={"rate_per_s": 33.0, "max_in_flight": 5},
        retry={"cap_s": 7.0},
        log={"level": "debug", "format": "console"},
        store={"path": "/somewhere/else.db"},
    )

    before = time.monotonic_ns() // 1000
    daemon.running.signal(signal.SIGHUP)

    reloading = systemd.heard("RELOADING")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    said = systemd.heard("READY")["STATUS"]
    assert said == "restart for store.path, log.format"
    gate = daemon.status()["gate"]
    assert (gate["limit_per_s"], gate["max_in_flight"]) == (33.0, 5)
    (reloaded,) = events(systemd, "daemon.reloaded")
    assert set(reloaded["changed"]) == {
        "delivery.rate_per_s",
        "delivery.max_in_flight",
        "retry.cap_s",
        "log.level",
    }
    (needed,) = events(systemd, "daemon.restart_needed")
    assert (needed["level"], needed["changed"]) == ("warning", ["store.path", "log.format"])


def test_a_bad_reload_is_refused_whole_and_says_why(systemd: Supervisor, sandbox: Sandbox) -> None:
    daemon = systemd.start().daemon
    systemd.heard("READY")
    daemon.configure(sandbox.url, delivery={"rate_per_s": 33.0, "drain_s": -1}, retry={"cap": 1})

    daemon.running.signal(signal.SIGHUP)

    systemd.heard("RELOADING")
    said = systemd.heard("READY")["STATUS"]
    assert said.startswith("the last reload was refused: ")
    assert "delivery.drain_s = -1" in said
    (refused,) = events(systemd, "daemon.reload_refused")
    assert refused["level"] == "error"
    assert "delivery.drain_s = -1" in refused["error"]
    assert "retry.cap" in refused["error"]
    assert daemon.status()["troubles"] == [said]
    assert ", did you mean cap_s?; " in said
    daemon.configure(sandbox.url)
    assert daemon.status()["gate"]["limit_per_s"] == 500.0


def test_a_reload_loses_no_request(systemd: Supervisor, sandbox: Sandbox) -> None:
    """Every request under way gets its answer; each patch travels once."""
    sandbox.change(latency_s=0.3)
    daemon = systemd.start().daemon
    systemd.heard("READY")
    daemon.insert(*[(f"run_{number}", "x", None) for number in range(40)])
    for rate in (400.0, 300.0, 200.0):
        daemon.configure(sandbox.url, delivery={"rate_per_s": rate})
        daemon.running.signal(signal.SIGHUP)
        systemd.heard("RELOADING")
        systemd.heard("READY")

    waited = daemon.syncd("wait", "--all", "--timeout", "15")

    assert waited.returncode == 0, daemon.log()
    assert sandbox.stats()["requests"] == 40


def test_a_new_token_is_used_after_a_reload(
    tmp_path: Path, sandbox: Sandbox, systemd: Supervisor
) -> None:
    file = tmp_path / "token"
    file.write_text("sandbox-token\n")
    file.chmod(0o600)
    daemon = systemd.daemon
    daemon.configure(sandbox.url, api={"token_file": str(file)})
    systemd.start().heard("READY")
    sandbox.change(token="the-next-token")
    daemon.insert(("run_1", "x", None))
    logged(systemd, "gate.blocked")

    file.write_text("the-next-token\n")
    daemon.running.signal(signal.SIGHUP)

    assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0, daemon.log()
    assert "the-next-token" not in daemon.log()


# Stop


def test_a_stop_waits_for_answers_and_settles_them(systemd: Supervisor, sandbox: Sandbox) -> None:
    sandbox.change(latency_s=1.0)
    daemon = systemd.start().daemon
    systemd.heard("READY")
    daemon.insert(("run_1", "x", None))
    while sandbox.stats()["requests"] == 0:
        time.sleep(0.01)

    daemon.running.signal(signal.SIGTERM)
    stopping = systemd.heard("STOPPING")
    extended = systemd.heard("EXTEND_TIMEOUT_USEC")
    daemon.running.signal(signal.SIGHUP)  # comes too late to be heeded
    reloads = systemd.hears("RELOADING", 0.2)
    code = daemon.running.ended()

    assert (code, reloads) == (0, 0)
    assert stopping["STATUS"] == "stopping: waiting for answers, up to 3 s"
    assert int(extended["EXTEND_TIMEOUT_USEC"]) >= 3_000_000
    assert sandbox.stats()["requests"] == 1
    assert not daemon.database.with_name("syncd.db-wal").exists()
    assert daemon.rows("SELECT state FROM outbox") == [("delivered",)]


@pytest.mark.parametrize("again", [None, signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_stop_does_not_wait_longer_than_drain_s(
    systemd: Supervisor, sandbox: Sandbox, again: signal.Signals | None
) -> None:
    """Nor for that, if it is asked for again: what is out is left to the next start."""
    sandbox.change(faults="hang=1")
    daemon = systemd.daemon
    drain_s = 0.5 if again is None else 60.0
    daemon.configure(sandbox.url, delivery={"drain_s": drain_s}, api={"timeout_s": 60.0})
    systemd.start().heard("READY")
    daemon.insert(("run_1", "x", None))
    while sandbox.stats()["requests"] == 0:
        time.sleep(0.01)

    began = time.monotonic()
    if again is not None:
        daemon.running.signal(signal.SIGTERM)
        systemd.heard("STOPPING")
        daemon.running.signal(again)
    code = daemon.running.ended() if again is not None else daemon.stop()

    assert code == 0
    assert time.monotonic() - began < 5.0
    assert daemon.rows("SELECT state FROM outbox") == [("pending",)]
    assert [cut["in_flight"] for cut in events(systemd, "relay.drain_cut")] == [1]
    assert daemon.rows("SELECT count(*) FROM facts WHERE name = 'running'") == [(1,)]


# The watchdog


def paused(systemd: Supervisor, sandbox: Sandbox) -> None:
    """An operator has paused sending."""
    systemd.daemon.syncd("pause")
    systemd.daemon.insert(("run_1", "x", None))


def blocked(systemd: Supervisor, sandbox: Sandbox) -> None:
    """The API refuses the token."""
    sandbox.change(token="another")
    systemd.daemon.insert(("run_1", "x", None))
    logged(systemd, "gate.blocked")


def out(systemd: Supervisor, sandbox: Sandbox) -> None:
    """The API is down."""
    sandbox.change(faults="503=1")
    systemd.daemon.insert(*[(f"run_{number}", "x", None) for number in range(20)])
    logged(systemd, "gate.shut")


def slow(systemd: Supervisor, sandbox: Sandbox) -> None:
    """Answers take longer than the watchdog waits."""
    sandbox.change(latency_s=1.0)
    systemd.daemon.insert(*[(f"run_{number}", "x", None) for number in range(20)])


def locked(systemd: Supervisor, sandbox: Sandbox) -> sqlite3.Connection:
    """Another process holds the database's lock, so that no answer can be written down."""
    sandbox.change(latency_s=0.5)
    rude = sqlite3.connect(systemd.daemon.database, isolation_level=None)
    systemd.daemon.insert(*[(f"run_{number}", "x", None) for number in range(20)])
    rude.execute("BEGIN IMMEDIATE")
    assert logged(systemd, "store.unavailable")["doing"] == "settle"
    return rude


@pytest.mark.parametrize("condition", [paused, blocked, out, slow, locked])
def test_the_watchdog_is_fed_while_it_waits(
    systemd: Supervisor, sandbox: Sandbox, condition: Callable[[Supervisor, Sandbox], object]
) -> None:
    daemon = systemd.daemon
    daemon.configure(sandbox.url, retry={"base_s": 1.0, "cap_s": 5.0})
    systemd.start(**WATCHDOG).heard("READY")
    held = condition(systemd, sandbox)

    fed = systemd.hears("WATCHDOG", 4 * WATCHDOG_S)

    del held
    assert fed > 2, daemon.log()
    assert "relay.stuck" not in daemon.log()


def test_the_watchdog_is_not_fed_while_the_relay_is_stuck_though_the_loop_goes_on(
    systemd: Supervisor, sandbox: Sandbox
) -> None:
    """The threads of the database hang, as on a dead disk; the event loop does not notice."""
    daemon = systemd.daemon
    daemon.configure(sandbox.url, api={"timeout_s": 0.5})
    systemd.start(**WATCHDOG).heard("READY")
    daemon.insert(("run~500", "x", None))
    while sandbox.stats()["requests"] < 2:
        time.sleep(0.01)

    with all_but_the_first_stopped(daemon.pid):
        logged(systemd, "relay.stuck")
        fed = systemd.hears("WATCHDOG", 2 * WATCHDOG_S)
    fed_after = systemd.heard("WATCHDOG")

    assert fed == 0
    assert fed_after == {"WATCHDOG": "1"}
    (stuck,) = events(systemd, "relay.stuck")
    assert stuck["level"] == "error"


# The log


def test_an_outage_is_a_handful_of_lines(systemd: Supervisor, sandbox: Sandbox) -> None:
    """With probes every 0.1 s instead of every five minutes, so that seconds stand for hours."""
    daemon = systemd.daemon
    daemon.configure(sandbox.url, retry={"base_s": 0.02, "cap_s": 0.1})
    systemd.start().heard("READY")
    sandbox.change(faults="500=1")
    daemon.insert(*[(f"run_{number}", "x", None) for number in range(40)])
    while sandbox.stats()["requests"] < 40:
        time.sleep(0.05)
    sandbox.change(faults="")

    assert daemon.syncd("wait", "--all", "--timeout", "15").returncode == 0, daemon.log()

    lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    assert len(lines) <= 8, daemon.log()
    story = [event["event"] for event in lines if event["level"] != "info"]
    assert story == ["gate.shut", "gate.open"]
