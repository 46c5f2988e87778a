"""The commands while the daemon runs, and at the edge of its life."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from processes import Daemon, Sandbox, environment, start_daemon, syncd


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


def test_errors_of_the_daemon_are_one_line(daemon: Daemon) -> None:
    """In its own words."""
    found = daemon.syncd("show", "unheard_of")

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("syncd: no snapshot of unheard_of")


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


@pytest.mark.parametrize("closed", ["0<&-", "0<&- 1>&- 2>&-"])
def test_a_daemon_whose_standard_streams_are_closed_runs_and_stops(
    tmp_path: Path, sandbox: Sandbox, closed: str
) -> None:
    """No file, socket or handle of the event loop gets one of their numbers."""
    daemon = Daemon(tmp_path, sandbox.url)
    with subprocess.Popen(
        ["sh", "-c", f'exec "$0" -m syncd run {closed}', sys.executable],
        env=environment(tmp_path, **daemon.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        daemon.syncd("enqueue", "mute_1", "--name", "x")
        waited = daemon.syncd("wait", "--all", "--timeout", "15")
        numbers = [os.readlink(f"/proc/{running.pid}/fd/{number}") for number in range(3)]
        running.terminate()

    assert waited.stdout == "delivered\n"
    assert set(numbers) == {os.devnull}
    assert running.returncode == 0


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


class Older(BaseHTTPRequestHandler):
    """A daemon that is not restarted yet: it tells less than the commands of today ask for."""

    def do_GET(self) -> None:
        outbox = {"pending": 0, "in_flight": 0, "dead": 0, "held": 0, "delivered": 1}
        daemon = {"running": True, "state": "running", "reason": None, "pid": 1, "version": "0"}
        status = {"daemon": daemon, "outbox": outbox, "spool": {"waiting": 0}, "troubles": []}
        self._answer(status if self.path == "/status" else None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        out, newer = (3, 1) if "discard" in self.path else (0, 0)
        left = {"in_flight": out} | ({"newer_in_flight": newer} if newer else {})
        self._answer({"touched": 3, **left, "superseded": 0, "unclear": 0, "left_out": {}})

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
        left_alone = syncd("discard", "--all", folder=tmp_path).stdout
        checked = syncd("check", folder=tmp_path, SYNCD_API__TOKEN="t").stdout.splitlines()
        older.shutdown()

    assert (waited.returncode, waited.stdout, waited.stderr) == (0, "delivered\n", "")
    assert (retried.returncode, retried.stdout, retried.stderr) == (0, "retried 3 patches\n", "")
    assert left_alone == (
        "discarded 3 patches\n"
        "2 patches left alone: in flight now; try again\n"
        "1 patch left alone: newer patches with the same keys are in flight now; try again\n"
    )
    *_, database, spool = checked  # neither is there
    assert "the database was moved or removed" in database
    assert spool.startswith("warn  spool  ")
    assert "not there, though the daemon runs: put it back before it makes another" in spool
