"""A request that the vendor applies late does not undo newer values for long."""

import time
from pathlib import Path

from processes import PATIENCE_S, Daemon, Sandbox, start_daemon, start_sandbox


def until(sandbox: Sandbox, daemon: Daemon, run: str, value: object) -> None:
    """Wait until the vendor holds `value` at the run's key `k`."""
    deadline = time.monotonic() + PATIENCE_S
    while sandbox.runs().get(run, {}).get("metadata", {}).get("k") != value:
        assert time.monotonic() < deadline, f"{sandbox.requests()}\n{daemon.log()}"
        time.sleep(0.02)


def test_a_late_request_is_found_out_and_mended(tmp_path: Path) -> None:
    """The first request is cut and applied a second later, after a newer patch has arrived."""
    with (
        start_sandbox(tmp_path, "--faults", "zombie=1,zombie_s=1.5") as sandbox,
        start_daemon(tmp_path, sandbox.url, delivery={"suspect_s": 3.0}) as daemon,
    ):
        daemon.insert(("run", None, '{"k": "old"}'))
        deadline = time.monotonic() + PATIENCE_S
        while not sandbox.stats()["faults"].get("zombie"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        sandbox.change(faults="")
        daemon.insert(("run", None, '{"k": "new"}'))

        until(sandbox, daemon, "run", "new")
        until(sandbox, daemon, "run", "old")  # the zombie
        until(sandbox, daemon, "run", "new")
        assert "fence.unconfirmed" in daemon.log()
        assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0
        assert daemon.rows("SELECT count(*) FROM suspects") == [(0,)]


def test_a_request_of_a_killed_daemon_is_found_out_too(tmp_path: Path) -> None:
    """kill -9 while a request is out that is applied only after the next daemon's."""
    with start_sandbox(tmp_path, "--faults", "hang=1") as sandbox:
        daemon = Daemon(tmp_path, sandbox.url, delivery={"suspect_s": 3.0}).start()
        with daemon:
            sandbox.change(faults="zombie=1,zombie_s=2.5")
            daemon.insert(("run", None, '{"k": "old"}'))
            deadline = time.monotonic() + PATIENCE_S
            while not sandbox.stats()["faults"].get("zombie"):
                assert time.monotonic() < deadline
            daemon.kill()
            sandbox.change(faults="")
            daemon.insert(("run", None, '{"k": "new"}'))
            daemon.start()

            until(sandbox, daemon, "run", "new")
            until(sandbox, daemon, "run", "old")
            until(sandbox, daemon, "run", "new")
            assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0
