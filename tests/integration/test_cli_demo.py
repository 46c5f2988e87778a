"""`syncd demo`: it proves what it says, keeps its folder when asked to, and leaves nothing else."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from processes import environment, syncd


def test_the_demo_proves_itself_and_its_next_commands_work(tmp_path: Path) -> None:
    """In a folder to keep: every line of the proof is ok, and what it tells to try can be typed."""
    kept = tmp_path / "kept"

    found = syncd("demo", "--patches", "60", "--keep", kept, folder=tmp_path, timeout=60)

    assert found.returncode == 0, found.stderr
    assert "60 of 60 delivered" in found.stdout
    assert "differing runs   0 of" in found.stdout
    assert "  NO  " not in found.stdout
    commands = re.findall(r"^  \S+ -m syncd (.+)$", found.stdout, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        tried = syncd(*shlex.split(command), folder=tmp_path)
        assert tried.returncode == (3 if command.startswith("status") else 0), tried.stderr
        assert tried.stdout


def test_the_demo_heeds_nothing_of_its_surroundings_and_cleans_up(tmp_path: Path) -> None:
    """Settings in the environment are not for it, and its folder is gone afterwards."""
    found = syncd(
        "demo", "--patches", "8", folder=tmp_path, timeout=60,
        TMPDIR=str(tmp_path), SYNCD_DELIVERY__RATE_PER_S="nonsense",
        http_proxy="http://127.0.0.1:1",
    )  # fmt: skip

    assert found.returncode == 0, found.stderr
    assert "syncd demo --keep" in found.stdout or "-m syncd demo --keep" in found.stdout
    assert not [name for name in os.listdir(tmp_path) if name.startswith("syncd-demo-")]


def test_an_interrupted_demo_takes_its_children_with_it(tmp_path: Path) -> None:
    """143, as by a signal, without a word; no folder, no process left."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "syncd", "demo", "--patches", "5000"],
        env=environment(tmp_path, TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    progress = next(line for line in demo.stdout if " delivered; " in line)
    (folder,) = tmp_path.glob("syncd-demo-*")
    children = _processes_that_name(str(folder))
    demo.send_signal(signal.SIGTERM)
    _, errors = demo.communicate(timeout=30)

    assert "of 5,000 delivered" in progress
    assert len(children) == 2
    assert demo.returncode == 143
    assert errors.strip() == ""
    assert not folder.exists()
    assert _processes_that_name(str(folder)) == []


def test_a_folder_in_use_is_not_taken(tmp_path: Path) -> None:
    """Whatever lies there is somebody's."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/thesis.txt").write_text("")

    found = syncd("demo", "--keep", tmp_path / "kept", folder=tmp_path)

    assert found.returncode == 1
    assert "not empty" in found.stderr


def _processes_that_name(text: str) -> list[int]:
    """Processes with `text` on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "cmdline").read_text(errors="replace"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found
