"""Fixtures of the tests that touch files and sockets."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from asking import Asking, listening
from delivering import delivering
from processes import Daemon, Sandbox, start_daemon, start_sandbox
from sandboxed import sandboxed
from stores import Wall, opened

from syncd.store import Store


@pytest.fixture
def wall() -> Wall:
    """The clock of `store`: it moves only when it is moved."""
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test may have a database."""
    return tmp_path / "syncd.db"


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    """An open, empty store."""
    async with opened(tmp_path / "syncd.db", wall) as it:
        yield it


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    """The control socket of a daemon whose gate is closed by an operator."""
    async with sandboxed() as sandbox, delivering(tmp_path / "s.db", sandbox) as it:
        it.gate.pause()
        async with listening(tmp_path / "run" / "syncd.sock", it) as asking:
            yield asking


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One for all tests of a file."""
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def daemon(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests of a file, which leave it sending."""
    with start_daemon(tmp_path_factory.mktemp("daemon"), sandbox.url) as daemon:
        yield daemon
