"""Whether the database is open to its group is the operator's choice, and private by default."""

import stat
from pathlib import Path

import pytest
from processes import Daemon, start_daemon, start_sandbox


def modes(daemon: Daemon) -> set[str]:
    files = [Path(f"{daemon.database}{ending}") for ending in ("", "-wal", "-shm")]
    return {f"{stat.S_IMODE(file.stat().st_mode):o}" for file in files}


@pytest.mark.parametrize(("access", "mode"), [("none", "600"), ("read", "640"), ("write", "660")])
def test_the_file_and_its_log_have_the_mode_that_was_chosen(
    tmp_path: Path, access: str, mode: str
) -> None:
    """Whatever the umask; SQLite's own files beside it too."""
    with (
        start_sandbox(tmp_path) as sandbox,
        start_daemon(tmp_path, sandbox.url, store={"group_access": access}) as daemon,
    ):
        assert modes(daemon) == {mode}


def test_a_new_choice_takes_hold_at_the_next_start(tmp_path: Path) -> None:
    """Also after a kill, which leaves the log behind with its old mode."""
    with (
        start_sandbox(tmp_path) as sandbox,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        daemon.kill()
        daemon.configure(sandbox.url, store={"group_access": "write"})
        daemon.start()

        assert modes(daemon) == {"660"}
