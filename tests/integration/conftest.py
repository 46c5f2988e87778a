"""Fixtures of the tests that touch files and sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
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
