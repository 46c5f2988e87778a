"""Machines for these tests. Where none can be booted they are skipped."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import Installed, install
from machine import Machine, unavailable

ROOT = Path(__file__).parents[3]
SOURCES = (
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    "syncd",
    "systemd",
)
INTERPRETER = "/usr/bin/python3"


@pytest.fixture(scope="session")
def bootable() -> None:
    """Skip where no machine can be booted."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"no test under a real systemd: {reason}")


@pytest.fixture(scope="session")
def share(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every machine is given: the sources, and wheels, because it has no network."""
    folder = tmp_path_factory.mktemp("share")
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            built = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, sources / name, ignore=built)
        else:
            shutil.copy(ROOT / name, sources / name)
    version = subprocess.run(
        [INTERPRETER, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["speed"],
    ]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
            *("--only-binary=:all:", "--python-version", version, "--dest", folder / "wheels"),
            *("--constraint", ROOT / "constraints.txt", *wanted),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def machine(share: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine of the test's own, with nothing installed yet."""
    with Machine(tmp_path, share) as it:
        yield it


@pytest.fixture(scope="session")
def common(share: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """One machine for many tests, with syncd installed."""
    with Machine(tmp_path_factory.mktemp("machine"), share) as machine:
        install(machine)
        yield Installed(machine)


@pytest.fixture
def service(common: Installed) -> Installed:
    """The service as after an installation; not started."""
    common.fresh()
    return common
