"""What stands in the way of intake: disks, folders, links, names and files that change."""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from taking import (
    GOOD,
    SOON_S,
    FragileStore,
    batches,
    drop,
    ended,
    intake_of,
    line,
    row,
    rows_of,
    running,
    take_in,
    tree,
)

from syncd.core import looks
from syncd.core.patch import Patch
from syncd.intake import Intake
from syncd.spool import Outlook, Spool
from syncd.spool.ready import Stage
from syncd.store import Accepted, Place, StoreBusy, StoreFull

SHM = Path("/dev/shm")


@pytest.mark.parametrize("written", [False, True])
async def test_a_full_disk_or_a_locked_database_is_waited_out(
    store: FragileStore, spool: Spool, written: bool
) -> None:
    drop(spool, "a.jsonl", "\n".join([line(1), "bad", line(2)]))
    store.refusals = [(StoreFull("disk full"), False), (StoreBusy("locked"), written)]
    intake = intake_of(store, spool)

    async with running(intake, spool) as moves:
        await moves.until("a.jsonl")

    assert rows_of(store) == [row(1), row(2)]
    assert intake.figures.trouble is None
    assert len(tree(spool.path / "rejected")["a.jsonl.rejected.jsonl"].splitlines()) == 1


@pytest.mark.skipif(
    not SHM.is_dir() or SHM.stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs two file systems",
)
async def test_a_file_that_cannot_be_moved_stays_and_is_tried_again(
    store: FragileStore, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(store, spool, rescan_s=0.02)
    elsewhere = Path(tempfile.mkdtemp(dir=SHM))
    drop(spool, "a.jsonl", GOOD)
    rename = os.rename

    def across(name: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        rename(name, elsewhere / target, src_dir_fd=src_dir_fd)

    async with running(intake, spool) as moves:
        monkeypatch.setattr(os, "rename", across)
        async with asyncio.timeout(SOON_S):
            while not intake.figures.left:  # noqa: ASYNC110  it is a fact, not an event
                await asyncio.sleep(0)
        assert (spool.incoming / "a.jsonl").exists()
        monkeypatch.undo()
        os.rmdir(elsewhere)
        await ended(moves, store, "a.jsonl")

        assert intake.figures.left == ()
    assert rows_of(store) == [row(1)]


@pytest.mark.parametrize("since", ["the start", "later"])
async def test_a_folder_that_is_a_file_is_told_and_waited_for(
    store: FragileStore, spool: Spool, since: str
) -> None:
    """In words: which one, and what to do; not as the error of some rename."""
    if since == "the start":
        spool.done.rmdir()
        spool.done.write_text("")
    intake = intake_of(store, spool)

    async with running(intake, spool):
        if since == "later":
            await intake.watching.wait()
            spool.done.rmdir()
            spool.done.write_text("")
        drop(spool, "a.jsonl", GOOD)
        async with asyncio.timeout(SOON_S):
            while not (trouble := intake.figures.trouble):  # noqa: ASYNC110  a fact, no event
                await asyncio.sleep(0)
        spool.done.unlink()
        await store.closing.wait()

    assert trouble == f"{spool.done}: not a folder: move it away"
    assert intake.figures.trouble is None
    assert tree(spool.done) == {"a.jsonl": GOOD}


@pytest.mark.parametrize("since", ["the start", "later"])
@pytest.mark.parametrize("name", ["incoming", "taking", "done", "rejected"])
async def test_a_folder_that_is_a_link_is_told_and_not_followed(
    store: FragileStore, spool: Spool, tmp_path: Path, name: str, since: str
) -> None:
    """What lies behind it was never dropped here, and stays."""
    folder, behind, aside = spool.path / name, tmp_path / "behind", tmp_path / "aside"
    (behind / "inside").mkdir(parents=True)
    (behind / "other.jsonl").write_text(line(2))
    intake = Intake(store, spool, rescan_s=0.02)

    def put_in_place() -> None:
        folder.rename(aside)
        folder.symlink_to(behind)

    if since == "the start":
        put_in_place()
    async with running(intake, spool):
        if since == "later":
            await intake.watching.wait()
            put_in_place()
        async with asyncio.timeout(SOON_S):
            while not (trouble := intake.figures.trouble):  # noqa: ASYNC110  a fact, no event
                await asyncio.sleep(0)
        folder.unlink()
        aside.rename(folder)
        drop(spool, "a.jsonl", GOOD)
        await store.closing.wait()

    assert trouble == f"{folder}: a symbolic link, not a folder: move it away"
    assert sorted(path.name for path in behind.iterdir()) == ["inside", "other.jsonl"]
    assert rows_of(store) == [row(1)]


async def test_the_way_to_the_spool_may_lead_through_links(
    store: FragileStore, spool: Spool, tmp_path: Path
) -> None:
    """State may well lie on another disk."""
    (tmp_path / "way").symlink_to(spool.path)
    through = Spool(tmp_path / "way", spool.settle_s, spool.max_file_bytes)
    drop(through, "a.jsonl", GOOD)

    await take_in(store, through, "a.jsonl")

    assert tree(spool.done) == {"a.jsonl": GOOD}


class Counting(Spool):
    """A spool that knows how often it was looked into."""

    looks = 0

    def scan(self, stages: Mapping[str, Stage]) -> Outlook:
        self.looks += 1
        return super().scan(stages)


async def test_a_file_that_is_touched_without_end_is_not_looked_at_without_end(
    store: FragileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look costs something for every file that waits; and what comes is taken all the same."""
    monkeypatch.setattr(looks, "AT_ONCE_S", 0.0)
    spool = Counting(tmp_path / "spool", 0.05, 1 << 30)
    spool.prepare()
    with (spool.incoming / "held.jsonl").open("w") as held:
        async with running(intake_of(store, spool), spool) as moves:
            for n in range(200):
                os.fchmod(held.fileno(), 0o600 | n % 2)
                await asyncio.sleep(0.003)  # as somebody who is never done
            seen = spool.looks
            drop(spool, "a.jsonl", GOOD)
            await moves.until("a.jsonl")

    assert seen < 50
    assert rows_of(store) == [row(1)]


async def test_missing_folders_are_made_again(store: FragileStore, spool: Spool) -> None:
    """Whatever comes next: a file that is taken, or one that is refused."""
    async with running(intake_of(store, spool), spool) as moves:
        drop(spool, "a.jsonl", GOOD)
        await moves.until("a.jsonl")
        await store.all_closed()
        (spool.done / "a.jsonl").unlink()
        spool.done.rmdir()
        store.closing.clear()
        drop(spool, "b.jsonl", line(2))
        await store.closing.wait()

        rejected = spool.path / "rejected"
        rejected.rmdir()
        (spool.incoming / "link.jsonl").symlink_to("/dev/zero")
        async with asyncio.timeout(SOON_S):
            while not (rejected / "link.jsonl").is_symlink():  # noqa: ASYNC110  nothing to await
                await asyncio.sleep(0.005)

    assert rows_of(store) == [row(1), row(2)]
    assert tree(spool.done) == {"b.jsonl": line(2)}


@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "gone"])
async def test_a_folder_cleared_away_under_a_move_repeats_no_patch(
    store: FragileStore, spool: Spool, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """Its file is still there: nobody has taken that away."""
    rename, cleared = os.rename, False

    def clear(name: str, target: str, **folders: int) -> None:
        nonlocal cleared
        if not cleared and (spool.taking / "a.jsonl").exists():
            cleared = True
            spool.done.rmdir()
            if anew:
                spool.done.mkdir()
        rename(name, target, **folders)

    monkeypatch.setattr(os, "rename", clear)
    drop(spool, "a.jsonl", GOOD)
    async with running(intake_of(store, spool), spool):
        async with asyncio.timeout(SOON_S):
            while not (spool.done / "a.jsonl").exists():  # noqa: ASYNC110  nothing to await
                await asyncio.sleep(0.005)
        await store.all_closed()

    assert cleared
    assert rows_of(store) == [row(1)]
    assert len(batches(store)) == 1


async def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(
    store: FragileStore, spool: Spool
) -> None:
    """Its writer has opened it before it was moved to its place, and goes on."""
    path = spool.incoming / "a.jsonl"
    accept = store.accept

    async def grow(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        if store.calls == 0:
            with (spool.taking / "a.jsonl").open("a") as late:
                late.write(line(3) + "\n")
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    store.accept = grow  # type: ignore[method-assign]
    await take_in(store, spool, "a.jsonl", rows=1)

    assert not path.exists()
    assert rows_of(store) == [row(1), row(2), row(3)]


async def test_a_file_replaced_while_it_is_read_makes_two(
    store: FragileStore, spool: Spool
) -> None:
    accept = store.accept

    async def replace(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        if store.calls == 0:
            drop(spool, "a.jsonl", f"{line(3)}\n")
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    store.accept = replace  # type: ignore[method-assign]
    await take_in(store, spool, "a.jsonl", "a.1.jsonl", rows=1)

    assert rows_of(store) == [row(1), row(2), row(3)]


async def test_a_file_that_vanishes_while_it_is_read_is_taken(
    store: FragileStore, spool: Spool
) -> None:
    accept = store.accept

    async def vanish(patches: Sequence[Patch], place: Place | None = None) -> Accepted:
        (spool.taking / "a.jsonl").unlink(missing_ok=True)
        return await accept(patches, place)

    drop(spool, "a.jsonl", f"{line(1)}\n{line(2)}\n")
    drop(spool, "b.jsonl", f"{line(3)}\n")
    store.accept = vanish  # type: ignore[method-assign]
    await take_in(store, spool, "b.jsonl", rows=1)

    assert rows_of(store) == [row(1), row(2), row(3)]
    assert batches(store) == [("a.jsonl", 2, 0, 0, True), ("b.jsonl", 1, 0, 0, True)]


async def test_a_name_that_is_no_text_is_taken_like_any_other(
    store: FragileStore, spool: Spool
) -> None:
    name = os.fsdecode(b"\xff\n.jsonl")
    drop(spool, name, GOOD)

    await take_in(store, spool, name)

    assert rows_of(store) == [row(1)]
    assert batches(store)[0][0] == "\\xff\n.jsonl"
