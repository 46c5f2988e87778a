"""Daemons that are there and cannot be asked: stuck, without their socket or database, or shut."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from commands import begun, first_word, halted, lines
from processes import PATIENCE_S, Daemon, Sandbox, in_use, start_daemon, syncd

from syncd.cli.wire import Mute, Wire


def test_whoever_holds_the_database_unheard_is_told(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "http://127.0.0.1:9")
    daemon.database.parent.mkdir(parents=True)
    with in_use(daemon.database):
        found = daemon.status()
        checked = daemon.syncd("check").stdout

    (trouble,) = found["troubles"]
    assert f"none answers at {daemon.socket}" in trouble
    assert "restart" in trouble
    missed = f"{daemon.database}: is not there, though a process uses it"
    assert f"FAIL  database       {missed}" in checked
    assert daemon.status()["troubles"] == []


def test_nothing_is_handed_in_beside_a_database_that_its_user_misses(tmp_path: Path) -> None:
    """It was moved away under a daemon that cannot be asked: a new one would be nobody's.

    Nor is anybody advised to start one more, or told that nothing waits.
    """
    daemon = Daemon(tmp_path, "http://127.0.0.1:9")
    daemon.database.parent.mkdir(parents=True)
    with in_use(daemon.database):
        for command in (("enqueue", "r", "--name", "x"), ("list",), ("wait", "--all")):
            found = daemon.syncd(*command)

            assert (found.returncode, found.stdout) == (1, "")
            assert found.stderr.startswith(
                f"syncd: {daemon.database}: is not there, though a process uses"
            )
    assert not daemon.database.exists()


def test_a_socket_that_was_removed_is_soon_there_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """Until then nobody takes the daemon for down. What else lies in its place is named."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        with halted(daemon):  # or it may be there again at once
            daemon.socket.unlink()
            daemon.socket.write_text("somebody's")
            taken = daemon.status()["daemon"]["reason"], daemon.syncd("check").stdout
            daemon.socket.unlink()
            looked = daemon.syncd("status", "--json")
            screen = daemon.syncd("status").stdout
            listed = daemon.syncd("list")
            checked = daemon.syncd("check").stdout
        deadline = time.monotonic() + PATIENCE_S
        while (status := daemon.status())["daemon"]["reason"]:
            assert time.monotonic() < deadline, daemon.log()
        daemon.stop()
        stopped = daemon.syncd("status")
        assert not daemon.socket.exists()
        daemon.socket.write_text("somebody's")
        refused = daemon.syncd("check")
        daemon.socket.unlink()

    for told in taken:
        there = f"none answers at {daemon.socket}: what lies there is not a socket: move it away"
        assert there in told
    start = f"{daemon.socket}: `syncd run` cannot start: not a socket: move it away"
    assert (refused.returncode, f"FAIL  daemon         {start}" in refused.stdout) == (1, True)
    unheard = json.loads(looked.stdout)["daemon"]
    assert looked.returncode == 0
    assert (unheard["running"], unheard["pid"]) == (True, daemon.pid)
    assert unheard["reason"].startswith(f"none answers at {daemon.socket}: ")
    assert f"running  ·  pid {daemon.pid}\n" in screen
    assert "syncd run" not in screen
    assert listed.stderr.startswith(f"syncd: the daemon runs, pid {daemon.pid}, but none answers")
    assert f"warn  daemon         runs, pid {daemon.pid}, but none answers" in checked
    assert (status["daemon"]["pid"], status["troubles"]) == (daemon.pid, [])
    assert status["daemon"]["started_at"]
    assert not daemon.socket.exists()
    assert stopped.returncode == 3


@pytest.mark.parametrize("instead", [None, b""], ids=["nothing", "another file"])
def test_a_database_that_was_moved_under_the_daemon_takes_nothing_in_until_it_is_back(
    sandbox: Sandbox, tmp_path: Path, instead: bytes | None
) -> None:
    one = '{"workflow_run_id":"moved","name":"x"}\n'
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.insert(("there", "x", None))
        daemon.syncd("wait", "--all", "--timeout", "15")
        before = daemon.status()
        away = daemon.database.rename(daemon.database.with_name("moved.db"))
        if instead is not None:
            daemon.database.write_bytes(instead)
        waits = [("wait", *what, "--timeout", "9") for what in (["--all"], ["--run", "there"])]
        readers = (("list",), ("batches",), ("runs",), ("why", "1"), *waits)
        looked = [daemon.syncd(*reader) for reader in readers]
        why = json.loads(daemon.syncd("why", "1", "--json").stdout)["daemon"]
        dropped = daemon.drop("d.jsonl", one)
        refused = [
            daemon.syncd("enqueue", "moved", "--name", "x"),
            daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=one),
            daemon.syncd("discard", "--all"),
        ]
        while len((after := daemon.status())["troubles"]) < 2:
            assert dropped.exists()
        checked = daemon.syncd("check")
        braked = daemon.syncd("pause")
        refused.append(daemon.syncd("resume"))
        still = daemon.status()["daemon"]
        away.rename(daemon.database)
        resumed = daemon.syncd("resume")
        waited = daemon.syncd("wait", "--batch", "d.jsonl", "--timeout", "15")
        while (healed := daemon.status())["troubles"]:
            assert daemon.database.exists()

    moved = f"{daemon.database}: the database was moved or removed"
    assert checked.returncode == 1
    assert f"FAIL  database       {moved}" in checked.stdout
    assert [(found.returncode, found.stderr) for found in looked] == [(0, "")] * len(readers)
    assert "there" in looked[0].stdout
    assert "there" in looked[2].stdout
    assert why["moved"]
    for found in refused:
        assert (found.returncode, found.stdout) == (1, "")
        assert moved in found.stderr
        assert found.stderr.count("\n") == 1
    assert (before["daemon"]["reason"], before["troubles"]) == (None, [])
    assert (braked.returncode, braked.stdout) == (1, "paused: nothing is sent\n")  # a brake brakes
    assert braked.stderr.startswith(f"syncd: a restart ends the pause as things stand: {moved}")
    assert (still["state"], still["moved"]) == ("paused", True)
    assert (before["daemon"]["moved"], healed["daemon"]["moved"]) == (False, False)
    assert resumed.stdout == "resumed\n"
    assert after["troubles"][0].startswith(moved)
    assert after["daemon"]["reason"] == after["troubles"][0]
    assert after["troubles"][1].startswith("the spool waits: ")
    assert (waited.returncode, healed["outbox"]["delivered"]) == (0, 2)


def test_a_daemon_that_is_stuck_is_told_from_one_that_is_down(tmp_path: Path) -> None:
    """Somebody listens and says nothing: one line, after a moment."""
    path = tmp_path / "state/syncd/syncd.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()

        visitor = threading.Thread(target=hang_up)
        visitor.start()
        found = syncd("status", folder=tmp_path)
        visitor.join()

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "the daemon went away before its answer was whole" in found.stderr


@pytest.mark.parametrize(
    ("waiting", "told"),
    [(0, "the daemon does not answer within 1 s"), (9, "is the daemon stuck?")],
    ids=["silent", "full"],
)
def test_wait_goes_on_while_a_daemon_is_stuck_and_says_so_once(
    tmp_path: Path, waiting: int, told: str
) -> None:
    """Until its time is up, which is not put off by an answer that does not come."""
    path = tmp_path / "state/syncd/syncd.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as others:
        listener.bind(str(path))
        listener.listen(5)
        for _ in range(waiting):
            other = others.enter_context(socket.socket(socket.AF_UNIX))
            other.setblocking(False)
            with suppress(BlockingIOError):  # its queue is full
                other.connect(str(path))
        began = time.monotonic()
        found = syncd("wait", "--patch", "1", "--timeout", "1", folder=tmp_path)
        took_s = time.monotonic() - began

    said, up = found.stderr.splitlines()
    assert (found.returncode, found.stdout) == (124, "")
    assert said.startswith(f"syncd: {path}: ")
    assert told in said
    assert up == "syncd: the time is up: nobody has answered"
    assert took_s < 4.5  # of five, for which other readers wait


@pytest.mark.parametrize(
    ("seconds", "told"), [(600.0, "600 s"), (5.0, "5 s"), (1.234567, "1.23 s")]
)
def test_how_long_nobody_has_answered_is_told_in_plain_figures(
    tmp_path: Path, seconds: float, told: str
) -> None:
    with pytest.raises(Mute, match=f" within {told}: "), Wire(tmp_path)._told(seconds):
        raise TimeoutError


MUTE = (
    "syncd: no answer from the daemon for 3 s: still waiting; Ctrl-C ends the wait,"
    " but what was asked may still be done\n"
)


@pytest.mark.parametrize(
    "arguments",
    [("enqueue", "hung", "--name", "x"), ("hold", "--reason", "hung_not"), ("pause",), ("resume",)],
    ids=lambda arguments: arguments[0],
)
def test_a_wait_for_a_daemon_that_hangs_is_not_mute(
    daemon: Daemon, arguments: tuple[str, ...]
) -> None:
    """One line on stderr after a moment; then it goes on waiting, and it is done in the end."""
    with halted(daemon), begun(daemon, *arguments, "--json") as command:
        said = first_word(command)
        daemon.running.signal(signal.SIGCONT)  # type: ignore[union-attr]
        out, err = command.communicate(timeout=20)
    daemon.syncd("resume")

    assert (said, err) == (MUTE, "")
    assert command.returncode == 0
    assert len(lines(out)) == 1


def test_who_no_longer_waits_for_a_daemon_that_hangs_may_go_at_once(daemon: Daemon) -> None:
    """And nobody waits for the rest of the file. What was asked may still be done."""
    line = json.dumps({"workflow_run_id": "left", "name": "x" * 350}) + "\n"
    enqueue = begun(daemon, "enqueue", "--file", "-", "--format", "jsonl")
    with enqueue as command:
        assert command.stdin is not None
        assert command.stderr is not None
        # More than it reads at a time: when it is written, the first part has been accepted …
        command.stdin.write(line * 1024)
        command.stdin.flush()
        with halted(daemon), begun(daemon, "hold", "--run", "hung_not") as hold:
            command.stdin.write(line * 400)  # … and this is enough for the second.
            command.stdin.flush()
            said = first_word(command), first_word(hold)
            for each in (command, hold):
                each.send_signal(signal.SIGINT)
            codes = command.wait(timeout=5), hold.wait(timeout=5)
            held = hold.communicate()
        then = command.stderr.read()
    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")

    assert said == (MUTE, MUTE)
    unsure = "syncd: stopped, and the daemon has not said how far it is: see `syncd status`\n"
    assert held == ("", unsure)
    assert then.strip() == (
        "syncd: stdin: stopped (500 patches accepted, and perhaps 500 patches more: see"
        " `syncd batches`; go on from line 501, or from line 1001 if they are in)"
    )
    assert codes == (130, 130)
    assert "was interrupted" in waited.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes somebody else, who may not connect")
def test_a_stranger_is_told_which_group_may_ask(daemon: Daemon) -> None:
    """Permission denied is not "not running"."""
    script = (
        "import os, sys\n"
        "from syncd.cli import main\n"
        "from syncd.cli.wire import Wire\n"
        "from syncd.errors import SyncdError\n"
        "from pathlib import Path\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: Wire(Path({str(daemon.socket)!r})).answers()\n"
        "except SyncdError as error: print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "permission denied: only root and members of the group" in found.stdout
