"""The machine that these tests run on: that it is one, and that nothing is left of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machine import Machine, sweep

HERE = Path(__file__).parent

BOOT = """
import sys, time
from pathlib import Path
from machine import Machine

with Machine(Path(sys.argv[1]), Path(sys.argv[1])) as machine:
    print(machine.init, flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("bootable")
def test_it_runs_systemd_and_keeps_to_itself(tmp_path: Path) -> None:
    with Machine(tmp_path / "machine", tmp_path) as machine:
        machine.write("/etc/written-inside", "x")
        running = machine.run("systemctl", "is-system-running").stdout.strip()
        interfaces = machine.read("/proc/net/dev").splitlines()[2:]

    assert running == "running"
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert not Path("/etc/written-inside").exists()


@pytest.mark.usefixtures("bootable")
def test_it_ends_with_whoever_booted_it_and_be_it_by_sigkill(tmp_path: Path) -> None:
    booting = subprocess.Popen(
        [sys.executable, "-c", BOOT, tmp_path],
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert booting.stdout is not None
    init = int(booting.stdout.readline())
    alive = is_alive(init)

    booting.send_signal(signal.SIGKILL)
    booting.communicate()

    assert alive
    deadline = time.monotonic() + 10
    while is_alive(init):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sweep()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
