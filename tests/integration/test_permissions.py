"""Folders and files that this user may not write: told as that, and before the start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment, syncd

# Root may write everywhere, unless it gives that up.
GIVE_UP = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root needs setpriv"
)


def as_anybody(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one command as somebody for whom modes count."""
    return anybody("-m", "syncd", *arguments, folder=folder)


def anybody(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The same for any Python."""
    return subprocess.run(
        [*(GIVE_UP if os.geteuid() == 0 else ()), sys.executable, *arguments],
        env=environment(folder, SYNCD_API__TOKEN="t"),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("mode", [0o555, 0o600])
@pytest.mark.parametrize("closed", ["state", "state/syncd"])
def test_check_and_run_agree_on_a_folder_that_is_closed(
    tmp_path: Path, closed: str, mode: int
) -> None:
    folder = tmp_path / closed
    folder.mkdir(parents=True)
    folder.chmod(mode)

    checked, ran = (as_anybody(command, folder=tmp_path) for command in ("check", "run"))

    folder.chmod(0o700)
    assert (checked.returncode, ran.returncode) == (1, 1)
    (database,) = [it for it in checked.stdout.splitlines() if it.split()[1] == "database"]
    assert database.startswith("FAIL")
    assert "permission denied" in database
    assert str(folder) in database
    (told,) = ran.stderr.splitlines()
    assert told.startswith(f"syncd: {folder}")
    assert mode == 0o555 or database.endswith(told.removeprefix("syncd: "))


def test_check_and_run_agree_on_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    checked, ran = (as_anybody(command, folder=tmp_path) for command in ("check", "run"))

    assert (checked.returncode, ran.returncode) == (1, 1)
    assert f"{tmp_path / 'state'}: not a folder" in checked.stdout


def test_check_knows_which_folders_of_the_spool_cannot_be_made(tmp_path: Path) -> None:
    spool = tmp_path / "state/syncd/spool"
    for name in ("incoming", "done", "rejected"):
        (spool / name).mkdir(parents=True)
    spool.chmod(0o555)

    checked = as_anybody("check", folder=tmp_path)

    assert checked.returncode == 1
    (told,) = [it for it in checked.stdout.splitlines() if it.startswith("FAIL")]
    assert f"{spool / 'taking'}: cannot be made: {spool}: permission denied" in told


def test_check_looks_at_the_files_too(tmp_path: Path) -> None:
    """A start by root leaves a lock that the service's user may not open."""
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    lock = tmp_path / "state/syncd/syncd.db.lock"
    lock.touch(0o400)

    checked, ran = (as_anybody(command, folder=tmp_path) for command in ("check", "run"))

    assert (checked.returncode, ran.returncode) == (1, 1)
    assert f"{lock}: permission denied: this user may not write it" in checked.stdout


def test_check_knows_that_a_start_mends_the_mode_of_its_own_database(tmp_path: Path) -> None:
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    (tmp_path / "state/syncd/syncd.db").chmod(0o400)

    assert as_anybody("check", folder=tmp_path).returncode == 0


SPOOL = """
import errno, sys
from pathlib import Path
from syncd.spool import Spool

spool = Spool(Path(sys.argv[1]), 1.0, 1)
spool.prepare()
spool.done.chmod(0o555)
print(spool.hindrance(OSError(errno.EACCES, "")))
print(spool.hindrance(OSError(errno.ENOSPC, "")))
"""


def test_a_folder_of_the_spool_that_is_closed_is_named(tmp_path: Path) -> None:
    """And is not blamed for what is no matter of folders."""
    spool = tmp_path / "spool"

    found = anybody("-c", SPOOL, str(spool), folder=tmp_path).stdout.splitlines()

    denied = "permission denied: let the daemon's user read and write it"
    assert found == [f"{spool / 'done'}: {denied}", "None"]


@pytest.mark.parametrize("command", ["list", "enqueue r --name y", "pause"])
def test_a_folder_without_permission_is_not_a_full_disk(tmp_path: Path, command: str) -> None:
    """SQLite only says that it cannot open its files there."""
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    folder = tmp_path / "state/syncd"
    (folder / "syncd.db.lock").touch(0o600)
    (folder / "syncd.db-wal").write_bytes(bytes(64))  # a reader cannot do without SQLite's files
    folder.chmod(0o555)

    found = as_anybody(*command.split(), folder=tmp_path)

    folder.chmod(0o700)
    assert found.returncode == 1
    assert f"{folder}: permission denied: this user may not write it" in found.stderr
    assert "free space" not in found.stderr
