"""`syncd sandbox` and `syncd run` as processes: how they begin, end, and refuse to begin."""

import dataclasses
import json
import urllib.request
from pathlib import Path

from processes import Daemon, start_sandbox, syncd

from syncd.cli.sandbox import sandbox_command
from syncd.sandbox import SandboxSettings


def test_the_sandbox_ends_at_once_and_keeps_its_runs(tmp_path: Path) -> None:
    """SIGTERM is exit code 0; what it holds is in its file, for the next one."""
    state = tmp_path / "runs.json"
    with start_sandbox(tmp_path, "--state", str(state), "--token", "t") as sandbox:
        request = urllib.request.Request(
            f"{sandbox.url}/workflow_runs/run_1",
            b'{"name": "kept"}',
            {"Authorization": "Bearer t", "Content-Type": "application/json"},
        )
        # A proxy of the environment is not for this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as answer:
            applied = json.load(answer)
        code = sandbox.running.stop()

    assert applied["workflowRun"]["name"] == "kept"
    assert code == 0
    assert json.loads(state.read_text())["runs"]["run_1"]["name"] == "kept"


def test_every_setting_of_the_sandbox_has_its_option() -> None:
    """With the same default; `latency` and `state` are named after what they hold."""
    defaults = {it.name: it.default for it in dataclasses.fields(SandboxSettings)}
    defaults["latency"] = defaults.pop("latency_s")
    defaults["state"] = defaults.pop("state_file")

    options = sandbox_command.make_context("sandbox", []).params

    assert options == defaults


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    """Which one, and why not."""
    with start_sandbox(tmp_path) as sandbox:
        port = sandbox.address.rpartition(":")[2]

        found = syncd("sandbox", "--port", port, folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert port in found.stderr


def test_a_state_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    """It is not overwritten."""
    (tmp_path / "notes.txt").write_text("mine")

    found = syncd("sandbox", "--state", "notes.txt", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_daemon_does_not_start_without_a_token(tmp_path: Path) -> None:
    """One line that says where to put it, exit code 4."""
    found = syncd("run", folder=tmp_path)

    assert found.returncode == 4
    assert found.stderr.count("\n") == 1
    assert "no API token" in found.stderr


def test_a_second_daemon_on_the_same_store_is_refused(tmp_path: Path) -> None:
    """One line, exit code 1; the first goes on."""
    with Daemon(tmp_path, "http://127.0.0.1:1/v1").start() as daemon:
        second = daemon.syncd("run")

        assert daemon.status()["daemon"]["pid"] == daemon.pid
    assert second.returncode == 1
    assert "another" in second.stderr


def test_a_second_daemon_on_the_same_spool_is_refused(tmp_path: Path) -> None:
    """With a database of its own it would take what the first has begun."""
    with Daemon(tmp_path / "a", "http://127.0.0.1:1/v1").start() as first:
        environ = {"SYNCD_SPOOL__PATH": str(first.spool), "SYNCD_API__TOKEN": "t"}

        second = syncd("run", folder=tmp_path / "b", **environ)

    assert second.returncode == 1
    assert second.stderr.count("another syncd takes in the files of this spool") == 1
