"""A spool and a store of its own for each test of intake."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from taking import FragileStore

from syncd.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", 0.05, 1 << 30)
    spool.prepare()
    return spool


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FragileStore]:
    store = await FragileStore.open(tmp_path / "syncd.db", time.time)
    store.refusals = []
    store.closing = asyncio.Event()
    yield store
    await store.close()
