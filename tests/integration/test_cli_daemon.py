"""The commands while the daemon runs, by its socket; and what happens at the edge of its life."""

import json
import os
import resource
import select
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from processes import (
    PATIENCE_S,
    Daemon,
    Running,
    Sandbox,
    environment,
    in_use,
    start_daemon,
    start_sandbox,
    syncd,
    until_it_waits_for,
)

from syncd.cli.wire import Mute, Wire
from syncd.store.accept import ABANDONED_S, open_batch
from syncd.store.schema import open_writer
from syncd.store.store import STEP_PATCHES


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def daemon(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with start_daemon(tmp_path_factory.mktemp("daemon"), sandbox.url) as daemon:
        yield daemon


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_patch_is_handed_in_awaited_and_shown(daemon: Daemon, sandbox: Sandbox) -> None:
    """The way from the command line to the API and back, numbers as they were typed."""
    accepted = daemon.syncd("enqueue", "way_1", "--name", "n", "--set", "a=1.50", "--json")
    patch_id = json.loads(accepted.stdout)["first_id"]
    waited = daemon.syncd("wait", "--patch", str(patch_id), "--timeout", "10")
    shown = daemon.syncd("show", "way_1", "--json")

    snapshot = json.loads(shown.stdout)
    assert (waited.returncode, waited.stdout) == (0, "delivered\n")
    assert sandbox.runs()["way_1"]["name"] == "n"
    assert set(snapshot) == {"workflow_run_id", "fetched_at", "patch_ids", "workflow_run"}
    assert snapshot["patch_ids"] == [patch_id]
    assert snapshot["workflow_run"]["metadata"] == {"a": 1.5}
    assert '"a":1.50' in shown.stdout
    page = daemon.syncd("show", "way_1").stdout
    assert '"a": 1.50' in page
    assert page.index("status ") < page.index("metadata ") < page.index("the rest ")
    assert '\n  "metadata"' not in page
    only = daemon.syncd("show", "way_1", "--metadata").stdout
    assert json.loads(only) == json.loads(shown.stdout)["workflow_run"]["metadata"]
    assert "1.50" in only
    assert shown.stderr == ""


def test_status_comes_from_the_daemon(daemon: Daemon) -> None:
    """With its pid and its gate; exit code 0."""
    found = daemon.syncd("status", "--json")

    status = json.loads(found.stdout)
    assert found.returncode == 0
    assert status["daemon"]["running"] is True
    assert status["daemon"]["pid"] == daemon.pid
    assert status["gate"]["breaker"] == "closed"
    assert "running" in daemon.syncd("status").stdout


def test_whoever_holds_the_database_unheard_is_told(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "http://127.0.0.1:9")
    daemon.database.parent.mkdir(parents=True)
    with in_use(daemon.database):
        found = daemon.status()

    (trouble,) = found["troubles"]
    assert f"none answers at {daemon.socket}" in trouble
    assert "restart" in trouble
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
    """Until then nobody takes the daemon for down."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        with halted(daemon):  # or it may be there again at once
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
        before = daemon.status()
        away = daemon.database.rename(daemon.database.with_name("moved.db"))
        if instead is not None:
            daemon.database.write_bytes(instead)
        readers = (("list",), ("batches",), ("runs",), ("wait", "--all", "--timeout", "9"))
        looked = [daemon.syncd(*reader) for reader in readers]
        dropped = daemon.drop("d.jsonl", one)
        refused = [
            daemon.syncd("enqueue", "moved", "--name", "x"),
            daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=one),
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

    assert checked.returncode == 1
    assert any(line.startswith("FAIL  database") for line in checked.stdout.splitlines())
    moved = f"{daemon.database}: the database was moved or removed"
    for found in (*refused, *looked):
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
    assert (waited.returncode, healed["outbox"]["delivered"]) == (0, 1)


def test_status_does_not_import_what_is_slow(daemon: Daemon) -> None:
    """Of the 0.3 s that an answer may take, most would go into imports."""
    script = (
        "import sys\n"
        "from syncd.cli import main\n"
        "try: main(['status'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(daemon.folder, **daemon.environment),
        capture_output=True,
        text=True,
        check=True,
    )

    imported = set(found.stderr.split())
    assert "syncd.cli.status" in imported
    assert not imported & {"asyncio", "aiohttp", "aiosqlite", "rich", "structlog", "syncd.store"}


def test_a_batch_is_awaited_by_its_name(daemon: Daemon) -> None:
    """From the moment the file is in place, before it is taken in."""
    daemon.drop("drop.csv", "workflow_run_id,name\nbatch_1,x\nbatch_2,y\n")

    waited = daemon.syncd("wait", "--batch", "drop.csv", "--timeout", "10")
    batches = lines(daemon.syncd("batches", "--json").stdout)
    listed = lines(daemon.syncd("list", "--json", "--batch", "drop.csv").stdout)

    (batch,) = [batch for batch in batches if batch["name"] == "drop.csv"]
    assert waited.returncode == 0
    assert (batch["accepted"], batch["delivered"], batch["waiting"]) == (2, 2, 0)
    assert {row["workflow_run_id"] for row in listed} == {"batch_1", "batch_2"}


def test_a_batch_of_which_much_is_held_will_not_arrive_by_itself(daemon: Daemon) -> None:
    """However much: what is held is counted, not listed."""
    daemon.syncd("pause")
    text = "".join(f'{{"workflow_run_id": "held_{n}", "name": "x"}}\n' for n in range(1500))
    daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=text)
    daemon.syncd("hold", "--all")
    daemon.syncd("resume")

    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "10")
    daemon.syncd("discard", "--all")

    assert waited.returncode == 1, waited.stderr
    assert "is held by an operator" in waited.stdout
    assert waited.stdout.endswith("\nand 1,480 patches more: look with `syncd list`\n")


def test_a_batch_with_rejected_lines_is_trouble(daemon: Daemon) -> None:
    """What was delivered does not hide what was not."""
    daemon.drop("half.csv", "workflow_run_id,name\nhalf_1,x\nhalf_2,\n")

    waited = daemon.syncd("wait", "--batch", "half.csv", "--timeout", "10")

    assert waited.returncode == 1
    assert waited.stdout.startswith("1 line rejected: see ")


def test_a_file_rejected_as_a_whole_is_trouble(daemon: Daemon) -> None:
    """There is nothing to wait for."""
    daemon.drop("whole.json", "[")

    waited = daemon.syncd("wait", "--batch", "whole.json", "--timeout", "10")
    (batch,) = [
        one
        for one in lines(daemon.syncd("batches", "--json").stdout)
        if one["name"] == "whole.json"
    ]
    table = daemon.syncd("batches").stdout.splitlines()

    assert batch["refused"] == "the JSON text ends too early: the file is truncated"
    assert next(row for row in table if row.startswith("whole.json")).split()[1] == "refused"
    assert waited.returncode == 1
    assert "whole.json was rejected as a whole" in waited.stdout


def test_a_file_is_handed_in_over_the_socket(daemon: Daemon) -> None:
    """In several requests, metadata over several lines included, as one batch."""
    content = json.dumps(
        [{"workflow_run_id": f"sock_{n % 40}", "metadata": {"n": n}} for n in range(1200)],
        indent=1,
    )

    found = daemon.syncd("enqueue", "--file", "-", "--format", "json", input=content)
    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")
    runs = daemon.syncd("runs", "--json", "--where", "n=1199", "--status", "PROCESSED")

    assert found.stdout == "accepted 1,200 patches as batch stdin\n"
    assert waited.returncode == 0
    assert [run["workflow_run_id"] for run in lines(runs.stdout)] == ["sock_39"]


@contextmanager
def handing_in(daemon: Daemon, run: str) -> Iterator[subprocess.Popen[bytes]]:
    """An `enqueue --file -` in the middle of what it is given, its batch open."""
    before = {row["id"] for row in lines(daemon.syncd("batches", "--json").stdout)}
    command = (sys.executable, "-m", "syncd", "enqueue", "--file", "-", "--format", "jsonl")
    env = environment(daemon.folder, **daemon.environment)
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as enqueue:
        try:
            assert enqueue.stdin is not None
            line = f'{{"workflow_run_id":"{run}","name":"{"x" * 1000}"}}\n'
            enqueue.stdin.write(line.encode() * 1200)
            enqueue.stdin.flush()
            while not any(
                row["accepted"] and row["id"] not in before
                for row in lines(daemon.syncd("batches", "--json").stdout)
            ):
                assert enqueue.poll() is None
            yield enqueue
        finally:
            enqueue.kill()


def test_a_batch_whose_command_was_killed_is_not_awaited_for_ever(daemon: Daemon) -> None:
    with handing_in(daemon, "cut_1") as enqueue:
        enqueue.kill()
        enqueue.wait()

        waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")

    assert waited.returncode == 1
    assert waited.stdout == (
        "the rest of stdin was not handed in: `syncd enqueue` has ended before the file did\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_whose_command_was_interrupted_says_so(
    daemon: Daemon, number: signal.Signals
) -> None:
    with handing_in(daemon, "stopped_1") as enqueue:
        enqueue.send_signal(number)
        assert enqueue.wait() == 128 + number

    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")
    newest = daemon.syncd("batches", "--limit", "1").stdout.splitlines()[1]
    assert waited.returncode == 1
    assert waited.stdout == "the rest of stdin was not handed in: `syncd enqueue` was interrupted\n"
    assert " cut, 100% " in newest


def test_nor_is_one_whose_command_was_killed_while_no_daemon_ran(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nobody has heard of its end: that nothing has come to it for long must do."""
    daemon = Daemon(tmp_path, sandbox.url)
    daemon.database.parent.mkdir(parents=True)
    with closing(open_writer(daemon.database)) as db:
        open_batch(db, "stdin", "enqueue", time.time() - ABANDONED_S - 1.0)

    with daemon.start():
        waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")

    assert waited.returncode == 1
    assert "`syncd enqueue` has ended before the file did" in waited.stdout


def test_files_of_one_name_at_once_are_batches_of_their_own(daemon: Daemon) -> None:
    """The first to end closes none but its own."""
    with handing_in(daemon, "twice_1") as first:
        one = '{"workflow_run_id":"twice_2","name":"x"}\n'
        daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=one)
        second, still_open, *_ = lines(daemon.syncd("batches", "--json").stdout)
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait() == 0
    _, whole, *_ = lines(daemon.syncd("batches", "--json").stdout)

    assert (second["accepted"], second["closed_at"] is None) == (1, False)
    assert still_open["closed_at"] is None
    assert whole["id"] == still_open["id"]
    assert (whole["accepted"], whole["closed_at"] is None) == (1200, False)
    assert whole["refused"] is None


def test_the_socket_records_what_was_rejected(daemon: Daemon) -> None:
    """A batch handed in by `enqueue` tells of it as one from the spool does."""
    content = '{"workflow_run_id":"part_1","name":"x"}\nnonsense\n'
    (daemon.folder / "part.jsonl").write_text(content)

    daemon.syncd("enqueue", "--file", str(daemon.folder / "part.jsonl"))
    waited = daemon.syncd("wait", "--batch", "part.jsonl", "--timeout", "10")
    batches = lines(daemon.syncd("batches", "--json").stdout)

    (batch,) = [batch for batch in batches if batch["name"] == "part.jsonl"]
    assert batch["rejected"] == 1
    assert waited.returncode == 1
    assert waited.stdout == "1 line rejected: `syncd enqueue` has named them\n"


def test_a_dead_patch_is_named_and_can_be_retried(daemon: Daemon, sandbox: Sandbox) -> None:
    """A refused patch is parked with its answer; what newer patches have set stays theirs."""
    daemon.syncd("enqueue", "dead_1", "--name", "old", "--set", "sandbox_refuse=1")
    refused = daemon.syncd("wait", "--run", "dead_1", "--timeout", "10")
    listed = lines(daemon.syncd("list", "--json", "--run", "dead_1").stdout)
    newer = json.loads(daemon.syncd("enqueue", "dead_1", "--name", "new", "--json").stdout)
    daemon.syncd("wait", "--patch", str(newer["first_id"]), "--timeout", "10")

    table = daemon.syncd("list", "--state", "dead").stdout.splitlines()
    retried = daemon.syncd("retry", str(listed[0]["id"]))
    daemon.syncd("wait", "--run", "dead_1", "--timeout", "10")
    discarded = daemon.syncd("discard", "--run", "dead_1")

    assert refused.returncode == 1
    assert "is dead: http_422" in refused.stdout
    assert retried.stdout == (
        f"retried 1 patch\npatch {listed[0]['id']} goes without name: set by newer patches\n"
        f"it was refused with http_422: {listed[0]['last_error']['message']}\n"  # type: ignore[index]
    )
    assert table[0].split()[-2:] == ["ERROR", "MESSAGE"]
    assert table[1].endswith(listed[0]["last_error"]["message"])  # type: ignore[index]
    assert discarded.stdout == "discarded 1 patch\n"
    assert sandbox.runs()["dead_1"]["name"] == "new"


def test_a_run_is_delivered_whatever_was_discarded_of_it_before(daemon: Daemon) -> None:
    """It is history for who waits for the run, and no delivery for who waits for that patch."""
    refused = daemon.syncd("enqueue", "past_1", "--set", "sandbox_refuse=true", "--json")
    patch_id = str(json.loads(refused.stdout)["first_id"])
    daemon.syncd("wait", "--patch", patch_id, "--timeout", "10")
    daemon.syncd("discard", patch_id)
    nothing = daemon.syncd("wait", "--run", "past_1", "--timeout", "10")
    daemon.syncd("enqueue", "past_1", "--name", "x")
    run = daemon.syncd("wait", "--run", "past_1", "--timeout", "10")
    patch = daemon.syncd("wait", "--patch", patch_id, "--timeout", "10")

    assert (nothing.returncode, nothing.stdout) == (0, "nothing waits\n")
    assert (run.returncode, run.stdout) == (0, "delivered\n")
    assert patch.returncode == 1
    assert patch.stdout == f"patch {patch_id} for past_1 is discarded by an operator\n"


def test_a_verb_asks_the_daemon_whatever_the_file(daemon: Daemon) -> None:
    """A member of the socket's group need not be let into the folder of the database."""
    elsewhere = daemon.environment | {"SYNCD_STORE__PATH": "/dev/null/syncd.db"}

    found = syncd("discard", "999999", folder=daemon.folder, **elsewhere)

    assert found.returncode == 1
    assert found.stdout == "discarded 0 patches\n"
    assert found.stderr == "syncd: no patch 999999: look with `syncd list`\n"


def test_pause_stops_sending_and_resume_goes_on(daemon: Daemon, sandbox: Sandbox) -> None:
    """Intake goes on meanwhile; held patches stay where they are."""
    daemon.syncd("pause")
    daemon.syncd("enqueue", "pause_1", "--name", "x")
    paused = daemon.status()
    held = daemon.syncd("hold", "--run", "pause_1")
    released = daemon.syncd("release", "--run", "pause_1")
    before = "pause_1" in sandbox.runs()
    daemon.syncd("resume")
    waited = daemon.syncd("wait", "--run", "pause_1", "--timeout", "10")

    assert paused["daemon"]["state"] == "paused"
    assert paused["outbox"]["pending"] == 1
    assert (held.stdout, released.stdout) == ("held 1 patch\n", "released 1 patch\n")
    assert not before
    assert waited.returncode == 0


def test_a_retry_tells_that_nothing_goes_yet_where_something_would(daemon: Daemon) -> None:
    """Not of a patch that was discarded, nor of nothing. Of a run there is none at all."""
    daemon.syncd("pause")
    gone = json.loads(daemon.syncd("enqueue", "yet_1", "--name", "x", "--json").stdout)["first_id"]
    daemon.syncd("discard", str(gone))
    meant = [
        ("--reason", "BOGUS"),
        ("--run", "nobody"),
        ("--run", "yet_1"),
        (str(gone),),
        ("--all",),
    ]
    nothing = [daemon.syncd("retry", *those) for those in meant]
    daemon.syncd("enqueue", "yet_1", "--name", "y")
    something = [daemon.syncd("retry", *those) for those in (("--run", "yet_1"), ("--all",))]
    daemon.syncd("resume")
    waited = daemon.syncd("wait", "--run", "yet_1", "--timeout", "10")

    for each in nothing:
        assert each.stdout == "retried 0 patches\n"
    assert [each.returncode for each in nothing] == [0, 1, 0, 1, 0]
    assert nothing[1].stderr == "syncd: no patch for run nobody: look with `syncd list`\n"
    yet = "nothing goes yet: an operator has paused sending: syncd resume\n"
    for each in something:
        assert (each.returncode, each.stdout) == (0, "retried 0 patches\n" + yet)
    assert waited.returncode == 0


def test_deferred_patches_are_listed_with_their_cause(daemon: Daemon) -> None:
    """A run in trouble says when it is tried again and why."""
    daemon.syncd("enqueue", "late~503", "--name", "x")
    found = daemon.syncd("wait", "--run", "late~503", "--timeout", "0.5")
    (row,) = lines(daemon.syncd("list", "--json", "--run", "late~503").stdout)
    table = daemon.syncd("list", "--run", "late~503").stdout
    daemon.syncd("discard", "--run", "late~503")

    assert found.returncode == 124
    assert row["last_error"]["code"] == "http_503"  # type: ignore[index]
    assert "http_503" in table


def test_while_nothing_gets_through_neither_status_nor_why_names_an_end(tmp_path: Path) -> None:
    """However fast it could go; and they do again when something does. Who waits is told, once."""
    with (
        start_sandbox(tmp_path, "--faults", "500=1") as sandbox,
        start_daemon(tmp_path, sandbox.url, retry={"base_s": 0.05, "cap_s": 0.2}) as daemon,
    ):
        daemon.syncd("pause")
        daemon.insert(*((f"r{number}", "x", None) for number in range(20)))
        with begun(daemon, "wait", "--all", "--timeout", "30") as waiting:
            told = [first_word(waiting)]
            daemon.syncd("resume")
            told.append(first_word(waiting))
            down = daemon.status()
            text = daemon.syncd("status").stdout
            why = daemon.syncd("why", "20").stdout
            sandbox.change(faults="")
            waited = waiting.communicate(timeout=20)
        done = daemon.status()

    assert told[0] == "syncd: paused: an operator has paused sending: syncd resume\n"
    assert told[1].startswith("syncd: waiting: the API is failing; next probe at ")
    assert (waiting.returncode, *waited) == (0, "delivered\n", "")
    assert down["outbox"]["pending"] + down["outbox"]["in_flight"] == 20
    assert down["eta_s"] is None
    assert "done         unknown: nothing gets through\n" in text
    assert "expected     unknown: nothing gets through\n" in why
    assert done["eta_s"] == 0.0


def test_one_run_that_fails_alone_has_no_end_in_status_nor_in_why(tmp_path: Path) -> None:
    """The API is not taken to be down: its next try is known, and no more. When it is, `retry` has
    it asked at once."""
    with (
        start_sandbox(tmp_path, "--faults", "500=1") as sandbox,
        start_daemon(tmp_path, sandbox.url, retry={"base_s": 60.0, "cap_s": 60.0}) as daemon,
    ):
        daemon.insert(("r", "x", None))
        while not (status := daemon.status())["outbox"]["deferred"]:
            pass
        row = json.loads(daemon.syncd("why", "1", "--json").stdout)
        daemon.insert(*((f"r{number}", "x", None) for number in range(20)))
        while daemon.status()["daemon"]["state"] != "waiting":
            pass
        retried = daemon.syncd("retry", "21")
        while daemon.status()["gate"]["closed_until"] is None:  # until that has failed, too
            pass
        sandbox.change(faults="")
        all_of_it = daemon.syncd("retry", "--all")
        waited = daemon.syncd("wait", "--all", "--timeout", "15")

    assert (retried.returncode, retried.stdout, retried.stderr) == (
        0,
        "retried 0 patches\n"
        "the API is failing; it is asked at once, with r19, and what waits goes when it answers"
        " well\n",
        "",
    )
    assert "the API is failing; it is asked at once, and what waits" in all_of_it.stdout
    assert waited.returncode == 0, "a minute before the next try and the next probe"
    assert (status["daemon"]["state"], status["eta_s"]) == ("running", None)
    assert (row["daemon"]["state"], row["expected_s"]) == ("running", None)
    assert [cause["cause"] for cause in row["causes"]] == ["deferred"]


def test_errors_of_the_daemon_are_one_line(daemon: Daemon) -> None:
    """In its own words."""
    found = daemon.syncd("show", "unheard_of")

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("syncd: no snapshot of unheard_of")


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


READERS = (
    ("status",),
    ("list",),
    ("why", "here"),
    ("plan",),
    ("show", "here"),
    ("runs",),
    ("batches",),
    ("wait", "--all", "--timeout", "9"),
)


def test_readers_find_the_daemon_whose_settings_file_has_been_broken(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """It runs on as before. Who would change anything is refused; and all are, when it is gone."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("enqueue", "here", "--name", "x")
        daemon.syncd("wait", "--all", "--timeout", "10")
        daemon.config.write_text("[delivery\n")
        looked = [daemon.syncd(*reader) for reader in READERS]
        as_json = daemon.syncd("status", "--json")
        changed = [
            daemon.syncd(*verb)
            for verb in (("enqueue", "r", "--name", "x"), ("pause",), ("hold", "--all"), ("run",))
        ]
        daemon.stop()
        gone = [daemon.syncd(*reader) for reader in READERS]

    refusal = f"syncd: {daemon.config}: is not TOML: "
    for found in (*looked, as_json):
        assert found.returncode == 0
        assert found.stderr.startswith(refusal)
        assert found.stderr.endswith(f"; asking who listens on {daemon.socket}\n")
        assert found.stderr.count("\n") == 1
        assert found.stdout
    assert json.loads(as_json.stdout)["daemon"]["pid"] == daemon.pid
    for found in (*changed, *gone):
        assert (found.returncode, found.stdout) == (4, "")
        assert found.stderr.startswith(refusal)
        assert found.stderr.count("\n") == 1
        assert "asking" not in found.stderr


@pytest.mark.parametrize(
    ("line", "said", "unsure"),
    [
        ('[delivery]\nrate_per_s = "many"', "delivery.rate_per_s", False),
        ("[store]\nretention_days = -1", "store.retention_days", False),
        ("[store]\npath = 5", "store.path", True),
        ("[delivery]\nrate = 5", "delivery.rate", True),
        ("[delivry]\nrate_per_s = 5", "delivry", True),
    ],
)
def test_readers_find_the_daemon_whatever_is_wrong_in_its_settings(
    tmp_path: Path, sandbox: Sandbox, line: str, said: str, unsure: bool
) -> None:
    """Verbs are refused where it is not sure which daemon is meant; and so is all, if none is."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("enqueue", "here", "--name", "x")
        daemon.syncd("wait", "--all", "--timeout", "9")
        daemon.config.write_text(f"{line}\n")
        looked = [daemon.syncd(*reader) for reader in READERS]
        changed = daemon.syncd("pause")
        daemon.stop()
        gone = daemon.syncd("status")

    asking = f"; asking who listens on {daemon.socket}" if unsure else ""
    for found in looked:
        assert found.returncode == 0
        assert found.stderr.startswith(f"syncd: {daemon.config}: {said}")
        assert found.stderr.endswith(f"{asking}\n")
        assert found.stderr.count("\n") == 1
    assert changed.returncode == (4 if unsure else 0)
    assert gone.returncode == (4 if unsure else 3)


def test_status_says_so_where_everything_is_refused_alike(tmp_path: Path) -> None:
    """As where the API wants a version and is told none: each patch alone looks like a bad one."""
    with (
        start_sandbox(tmp_path, "--faults", "400=1") as sandbox,
        start_daemon(tmp_path / "d", sandbox.url) as daemon,
    ):
        patches = "".join(f'{{"workflow_run_id":"r{n}","name":"x"}}\n' for n in range(20))
        daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=patches)
        daemon.syncd("wait", "--all", "--timeout", "15")
        status = json.loads(daemon.syncd("status", "--json").stdout)

    (trouble,) = status["troubles"]
    assert status["outbox"]["dead"] == 20
    assert trouble.startswith("at least 20 runs in a row were refused alike, HTTP 400 (http_400)")
    assert trouble.endswith("syncd retry --reason http_400")


@contextmanager
def halted(daemon: Daemon) -> Iterator[None]:
    """It hangs while the block runs."""
    assert daemon.running is not None
    daemon.running.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.running.signal(signal.SIGCONT)


def begun(daemon: Daemon, *arguments: str) -> "subprocess.Popen[str]":
    """A command for this daemon that has not come to its end, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "syncd", *arguments],
        env=environment(daemon.folder, **daemon.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_word(command: "subprocess.Popen[str]") -> str:
    """Its first line on stderr; empty if there is none in good time."""
    assert command.stderr is not None
    ready, _, _ = select.select([command.stderr], [], [], 10.0)
    if not ready:
        command.kill()
    return command.stderr.readline()


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


Ended = tuple[int, str, str]


def held_until(
    daemon: Daemon, end: "Callable[[subprocess.Popen[str]], object]", *options: str
) -> Ended:
    """`hold --all` that is ended when it has done a step; so long it is kept from going on."""
    with begun(daemon, "hold", "--all", *options) as command:
        with closing(sqlite3.connect(daemon.database, isolation_level=None)) as db:
            while not db.execute("SELECT n FROM counters WHERE state = 'held'").fetchone()[0]:
                assert command.poll() is None
            db.execute("BEGIN IMMEDIATE")
            end(command)
        out, err = command.communicate(timeout=PATIENCE_S)
    return command.returncode, out, err


def test_a_verb_that_is_told_to_stop_says_how_far_it_is_and_goes_no_further(
    tmp_path: Path,
) -> None:
    """By ^C, or with the daemon; the same in the daemon's place. The rest is as it was."""
    held = []
    with start_daemon(tmp_path, "http://127.0.0.1:1") as daemon:
        daemon.syncd("pause")
        daemon.insert(*((f"r{n}", "x", None) for n in range(8 * STEP_PATCHES)))
        interrupted = held_until(daemon, lambda it: it.send_signal(signal.SIGINT), "--json")
        held += [daemon.status()["outbox"]["held"]]
        daemon.syncd("release", "--all")
        with_it = held_until(daemon, lambda _: daemon.running.signal(signal.SIGTERM))  # type: ignore[union-attr]
        daemon.running.ended()  # type: ignore[union-attr]
        held += [daemon.status()["outbox"]["held"]]
    daemon.syncd("release", "--all")
    by_file = held_until(daemon, lambda it: it.send_signal(signal.SIGTERM))
    held += [daemon.status()["outbox"]["held"]]

    so_far = [f"{n:,} patches held so far" for n in held]
    assert all(0 < n < 8 * STEP_PATCHES for n in held)
    told = json.loads(interrupted[1])
    assert (told["touched"], told["stopped"]) == (held[0], "interrupted")
    stopped = f"syncd: stopped: {so_far[0]}; the rest is as it was\n"
    assert (interrupted[0], interrupted[2]) == (130, stopped)
    cut_off = f"syncd: the daemon stops: {so_far[1]}; the rest is as it was: try again\n"
    assert with_it == (1, "", cut_off)
    assert by_file == (143, "", f"syncd: stopped: {so_far[2]}; the rest is as it was\n")
    assert "Traceback" not in daemon.log()


def fill_disk_of(pid: int) -> None:
    """What the process writes to a file ends early, and no step of a verb is so small."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))


def test_a_verb_whose_disk_is_full_in_the_middle_says_how_far_it_is(tmp_path: Path) -> None:
    """By the daemon, and the same in its place. The rest is as it was."""
    with start_daemon(tmp_path, "http://127.0.0.1:1") as daemon:
        daemon.syncd("pause")
        daemon.insert(*((f"r{n}", "x", None) for n in range(5 * STEP_PATCHES)))
        by_daemon = held_until(daemon, lambda _: fill_disk_of(daemon.pid), "--json")
        held = [daemon.status()["outbox"]["held"]]
        daemon.kill()
    daemon.syncd("release", "--all")
    by_file = held_until(daemon, lambda it: fill_disk_of(it.pid))
    held += [daemon.status()["outbox"]["held"]]

    assert all(0 < n < 5 * STEP_PATCHES and n % STEP_PATCHES == 0 for n in held)
    why = f"{daemon.database}: disk I/O error: free space or mend the file system"
    so_far = [
        f"syncd: {why}: {n:,} patches held so far; the rest is as it was: try again\n" for n in held
    ]
    told = json.loads(by_daemon[1])
    assert (told["touched"], told["stopped"]) == (held[0], why)
    assert (by_daemon[0], by_daemon[2]) == (1, so_far[0])
    assert by_file == (1, "", so_far[1])


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


def test_a_command_whose_daemon_was_killed_says_where_to_go_on(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """What is in is known to the patch, and nobody waits for its batch: not even for a daemon."""
    content = [f'{{"workflow_run_id":"killed","name":"{n} {"x" * 350}"}}\n' for n in range(1424)]
    enqueue = ("enqueue", "--file", "-", "--format", "jsonl", "--json")
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("pause")
        with begun(daemon, *enqueue) as command:
            assert command.stdin is not None
            command.stdin.writelines(content[:1024])
            command.stdin.flush()
            while not any(
                row["accepted"] for row in lines(daemon.syncd("batches", "--json").stdout)
            ):
                assert command.poll() is None
            daemon.running.signal(signal.SIGSTOP)  # type: ignore[union-attr]
            command.stdin.writelines(content[1024:])
            command.stdin.close()
            daemon.kill()
            assert command.stdout is not None
            assert command.stderr is not None
            told, said = json.loads(command.stdout.read()), command.stderr.read()
        (cut,) = lines(daemon.syncd("batches", "--json").stdout)
        daemon.start()
        rest = daemon.syncd(*enqueue, input="".join(content[told["next_line"] - 1 :]))
        names = [name for (name,) in daemon.rows("SELECT name FROM outbox ORDER BY id")]

    assert command.returncode == 1
    assert said.count("\n") == 1
    assert f"{told['accepted']:,} patches accepted: go on from line {told['next_line']})" in said
    assert "try again" not in said
    assert (cut["accepted"], cut["closed_at"] is not None) == (told["accepted"], True)
    assert cut["refused"] == told["refused"]
    assert rest.returncode == 0
    assert names == [json.loads(line)["name"] for line in content]


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


def test_check_finds_everything_in_order(daemon: Daemon) -> None:
    """Exit code 0, a line for each thing looked at, the token never among them."""
    found = daemon.syncd("check", "--online")

    assert found.returncode == 0
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["ok"] * 6
    assert "sandbox-token" not in found.stdout


@pytest.mark.parametrize("there", [True, False])
def test_check_fails_where_no_start_finds_the_token(daemon: Daemon, there: bool) -> None:
    """However well a daemon runs that was started when the file was there."""
    token = daemon.folder / "a-token"
    token.unlink(missing_ok=True)
    if there:
        token.write_text("sandbox-token")
    variables = {**daemon.environment, "SYNCD_API__TOKEN_FILE": str(token)}
    found = syncd("check", folder=daemon.folder, **variables)

    assert found.returncode == (0 if there else 4)
    assert ("FAIL  credentials" in found.stdout) is not there


def test_what_was_handed_in_before_the_start_is_delivered(tmp_path: Path, sandbox: Sandbox) -> None:
    """The file is the outbox, whoever writes to it; the last answer can be read afterwards."""
    daemon = Daemon(tmp_path, sandbox.url)
    daemon.syncd("enqueue", "early_1", "--name", "x")
    with daemon.start():
        waited = daemon.syncd("wait", "--all", "--timeout", "10")
        code = daemon.stop()

    shown = daemon.syncd("show", "early_1")
    assert waited.returncode == 0
    assert code == 0
    assert "name      x\n" in shown.stdout
    assert "the daemon is not running" in shown.stderr
    assert daemon.status()["outbox"]["delivered"] == 1


def test_a_daemon_that_starts_while_a_verb_is_at_work_waits_for_it(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """And the verb for the daemon, whoever comes first: here both find somebody else's lock. A
    start says so before its patience ends."""
    daemon = Daemon(tmp_path, sandbox.url)
    daemon.syncd("enqueue", "edge_2", "--name", "n")
    env = environment(tmp_path, **daemon.environment)
    with in_use(daemon.database):
        verb = Running("pause", ["pause"], tmp_path, env)
        until_it_waits_for(daemon.database, verb)
        daemon.running = Running("daemon", ["run"], tmp_path, env)
        until_it_waits_for(daemon.database, daemon.running)
        deadline = time.monotonic() + PATIENCE_S
        while "daemon.waits" not in daemon.log():
            assert daemon.running.exit_code is None, daemon.log()
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.02)

    with daemon:
        assert f"`fuser -v {daemon.database}`" in daemon.log()
        assert (verb.ended(), verb.log()) == (0, "paused: nothing is sent\n")
        assert daemon.syncd("resume").returncode == 0
        assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0
        assert daemon.status()["daemon"]["running"]


def test_wait_survives_a_restart_of_the_daemon(tmp_path: Path, sandbox: Sandbox) -> None:
    """Whoever waits does not care who delivers."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("pause")
        daemon.syncd("enqueue", "again_1", "--name", "x")
        waiting = subprocess.Popen(
            [sys.executable, "-m", "syncd", "wait", "--run", "again_1", "--timeout", "15"],
            env=environment(tmp_path, **daemon.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        daemon.stop()
        daemon.start()
        daemon.syncd("resume")

        assert waiting.wait(15) == 0


def test_a_list_whose_daemon_is_killed_halfway_is_not_taken_for_whole(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("pause")
        daemon.insert(*[(f"half_{n}", "x" * 2_000, None) for n in range(4_000)])
        command = [sys.executable, "-m", "syncd", "list", "--json", "--limit", "9999"]
        with subprocess.Popen(
            command,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as listing:
            assert listing.stdout is not None
            assert '"id":1,' in listing.stdout.readline()
            daemon.kill()
            rest, told = listing.communicate()

    assert listing.returncode == 1
    assert len(rest.splitlines()) < 3_999
    assert "the daemon went away before its answer was whole" in told


def test_an_api_that_knows_no_run_at_all_is_a_trouble_that_names_the_setting(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Each patch alone is parked as refused, and each alone might be somebody's mistake."""
    with start_daemon(tmp_path, f"{sandbox.url}/elsewhere") as daemon:
        daemon.insert(*[(f"lost_{n}", "x", None) for n in range(9)])
        daemon.syncd("wait", "--all", "--timeout", "10")
        few = daemon.status()
        daemon.insert(("lost_9", "x", None))
        daemon.syncd("wait", "--all", "--timeout", "10")
        many = daemon.status()
        shown = " ".join(daemon.syncd("status").stdout.split())

    assert (few["outbox"]["dead"], few["troubles"]) == (9, [])
    assert (many["outbox"]["dead"], len(many["troubles"])) == (10, 1)
    assert "check api.base_url and api.workspace_id, then syncd retry --reason " in shown


class Older(BaseHTTPRequestHandler):
    """A daemon that is not restarted yet: it tells less than the commands of today ask for."""

    def do_GET(self) -> None:
        outbox = {"pending": 0, "in_flight": 0, "dead": 0, "held": 0, "delivered": 1}
        daemon = {"running": True, "state": "running", "reason": None}
        status = {"daemon": daemon, "outbox": outbox, "spool": {"waiting": 0}, "troubles": []}
        self._answer(status if self.path == "/status" else None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"touched": 3, "in_flight": 0, "superseded": 0, "unclear": 0, "left_out": {}})

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, it: object) -> None:
        body = b"" if it is None else json.dumps(it).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_commands_of_an_upgrade_work_with_the_daemon_from_before(tmp_path: Path) -> None:
    """Between the installation and the restart."""
    path = tmp_path / "state/syncd/syncd.sock"
    path.parent.mkdir(parents=True)
    with socketserver.ThreadingUnixStreamServer(str(path), Older) as older:
        threading.Thread(target=older.serve_forever, args=(0.01,)).start()
        waited = syncd("wait", "--all", folder=tmp_path)
        retried = syncd("retry", "--all", folder=tmp_path)
        older.shutdown()

    assert (waited.returncode, waited.stdout, waited.stderr) == (0, "delivered\n", "")
    assert (retried.returncode, retried.stdout, retried.stderr) == (0, "retried 3 patches\n", "")
