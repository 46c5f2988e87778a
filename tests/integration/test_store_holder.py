"""A store is held by one daemon at a time, and let go of where it cannot be opened."""

import asyncio
import os
from pathlib import Path

import pytest
from processes import opened_by
from stores import ONE, Wall, count, opened

from syncd.core.patch import Patch
from syncd.store import Store, StoreError, StoreUnavailable
from syncd.store.lock import PATIENCE_S, daemon_of


async def test_a_store_is_held_by_one_daemon_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.accept(ONE)
        with pytest.raises(StoreError, match="another syncd holds this database") as refused:
            await Store.open(path, Wall(), patience_s=0.1)
        assert "\n" not in str(refused.value)
        await store.accept(ONE)

    async with opened(path) as again:
        assert count(again) == 2


async def test_who_holds_a_store_as_a_daemon_is_known_by_its_pid(tmp_path: Path) -> None:
    """By whatever name one asks. And not taken for one when it is gone, nor is somebody who holds
    it for a moment after."""
    path, link = tmp_path / "syncd.db", tmp_path / "link.db"
    link.symlink_to(path)
    async with opened(path) as store:
        before = daemon_of(path)
        await store.begin(60.0, None, 0.0)
        begun = daemon_of(link)
    gone = daemon_of(path)
    async with opened(path):
        after = daemon_of(path)

    assert (before, begun, gone, after) == (None, os.getpid(), None, None)


async def test_a_store_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """All else goes on meanwhile; and whoever is called off keeps nothing."""
    path = tmp_path / "s.db"
    async with opened(path):
        waiting = asyncio.create_task(Store.open(path, Wall()))
        called_off = asyncio.create_task(Store.open(path, Wall()))
        await holders(path, 3)
        called_off.cancel()
        await holders(path, 2)
        assert not waiting.done()

    async with asyncio.timeout(PATIENCE_S):
        store = await waiting
    await store.close()
    await holders(path, 0)


async def holders(path: Path, expected: int) -> None:
    """Wait until the lock is open that many times in this process."""
    lock = f"{path}.lock"
    async with asyncio.timeout(10):
        while [*opened_by(os.getpid())].count(lock) != expected:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0)


async def test_a_store_that_could_not_be_opened_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError):
        await Store.open(path, Wall())
    path.unlink()

    async with opened(path) as store:
        await store.accept(ONE)


async def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError) as refused:
        await Store.open(tmp_path / "file" / "s.db", Wall())

    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


async def test_a_damaged_database_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.accept([Patch(f"r{n}", "x" * 500) for n in range(500)])
    with path.open("r+b") as file:
        file.seek(8_192 * 3)
        file.write(os.urandom(8_192 * 20))

    with pytest.raises(StoreError, match="recover") as damaged:
        async with opened(path) as store:
            await store.accept([Patch(f"r{n}", "x" * 500) for n in range(500)])

    assert not isinstance(damaged.value, StoreUnavailable)
