"""Where each peer lives: an environment of its own below build/peers/, made when it is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peers.peers import Peer
from tests.benchmarks.record import NotHere
from tests.benchmarks.stand import ROOT

HOMES = ROOT / "build" / "peers"
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 600.0
_STAMP = "installed"


def installed(peer: Peer) -> list[str]:
    """The command that runs the peer's program. Raises NotHere where there can be none."""
    home = HOMES / Path(peer.program).name
    wanted = "\n".join(peer.packages) or (PROGRAMS / "node" / "package.json").read_text()
    stamp = home / _STAMP
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if peer.packages:
            _from_python_index(home, peer.packages)
        else:
            _from_npm(home)
        stamp.write_text(wanted)
    if peer.packages:
        return [str(home / "bin" / "python"), str(PROGRAMS / peer.program)]
    # A module is looked for beside the program that imports it.
    program = shutil.copy(PROGRAMS / peer.program, home)
    return [_found("node"), str(program)]


def versions(peer: Peer) -> str:
    """What is installed of what was asked for."""
    home = HOMES / Path(peer.program).name
    if not peer.packages:
        listed = _run([_found("npm"), "ls", "--parseable", "--long", "--depth=0"], home)
        names = [line.rpartition(":")[2] for line in listed.splitlines()[1:]]
        return ", ".join([f"node@{_run([_found('node'), '--version'], home).strip()[1:]}", *names])
    name = peer.packages[0].partition(">")[0]
    ask = f"from importlib.metadata import version; print(version({name!r}))"
    return f"{name}@{_run([str(home / 'bin' / 'python'), '-c', ask], home).strip()}"


def _from_python_index(home: Path, packages: tuple[str, ...]) -> None:
    _run([sys.executable, "-m", "venv", str(home)], home)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    _run([*pip, "--disable-pip-version-check", *packages], home)


def _from_npm(home: Path) -> None:
    _found("node")
    shutil.copy(PROGRAMS / "node" / "package.json", home)
    _run([_found("npm"), "install", "--no-audit", "--no-fund", "--loglevel=error"], home)


def _found(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotHere(f"there is no {program} on this machine")
    return found


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise NotHere(f"{Path(command[0]).name}: {said[-1] if said else error}") from error
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"{Path(command[0]).name}: not done in {PATIENCE_S:.0f} s") from error
    return done.stdout
