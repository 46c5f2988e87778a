"""Fixtures of the tests that touch files and sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asking import Asking, listening
from delivering import delivering
from sandboxed import sandboxed
from stores import Wall, opened

from syncd.store import Store


@pytest.fixture
def wall() -> Wall:
    """The clock of `store`: it moves only when it is moved."""
    return Wall()


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
