"""Links in place of a folder of the spool lead nowhere, and nothing stays open."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claiming import files, take

from syncd.spool import Candidate, Spool, Taken


def refused(spool: Spool) -> None:
    (spool.incoming / "a.csv").symlink_to("b.csv")
    spool.refuse("a.csv", "why")


def kept(spool: Spool) -> None:
    take(spool, "a.csv")
    spool.cut_rejects("a.csv", spool.add_rejects("a.csv", 0, [b"one\n"]))
    spool.finish("a.csv")


def set_aside(spool: Spool) -> None:
    take(spool, "a.csv")
    spool.reject("a.csv", "why")


def gone_on_with(spool: Spool) -> None:
    (spool.taking / "a.csv").write_text("x")
    for name in spool.leftovers():
        taken = spool.resume(name)
        assert isinstance(taken, Taken)
        with taken.file:
            assert taken.file.read() == b"x"


USES = [
    (refused, "incoming", "rename"),
    (refused, "rejected", "rename"),
    (refused, "rejected", "open"),
    (kept, "incoming", "rename"),
    (kept, "incoming", "open"),
    (kept, "taking", "rename"),
    (kept, "taking", "open"),
    (kept, "done", "rename"),
    (kept, "rejected", "rename"),
    (set_aside, "rejected", "rename"),
    (set_aside, "taking", "rename"),
    (gone_on_with, "taking", "listdir"),
    (gone_on_with, "taking", "open"),
]


@pytest.mark.parametrize(("use", "name", "call"), USES)
def test_a_link_that_takes_a_folders_place_during_a_use_leads_nowhere(
    spool: Spool, tmp_path: Path, use: Callable[[Spool], None], name: str, call: str
) -> None:
    """It is there right before each system call of the kind, and gone right after."""
    folder, behind, aside = spool.path / name, tmp_path / "behind", tmp_path / "aside"
    behind.mkdir()
    foreign = dict.fromkeys(("a.csv", ".a.csv.rejects", "other.csv"), "not ours")
    for each, text in foreign.items():
        (behind / each).write_text(text)
    real, rename = getattr(os, call), os.rename
    swaps = 0

    def swapped(*arguments: Any, **named: Any) -> Any:
        nonlocal swaps
        if arguments[0] == name:  # the folder itself is opened
            return real(*arguments, **named)
        swaps += 1
        rename(folder, aside)
        folder.symlink_to(behind)
        try:
            return real(*arguments, **named)
        finally:
            folder.unlink()
            rename(aside, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, swapped)
        use(spool)

    assert swaps
    assert files(behind) == foreign
    assert spool.rejected() == (use is not gone_on_with)


def test_a_link_in_place_of_the_rejects_leads_nowhere(spool: Spool, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    rejects = spool.taking / ".a.csv.rejects"
    rejects.symlink_to(outside)
    take(spool, "a.csv")

    for write in (
        lambda: spool.add_rejects("a.csv", 0, [b"one\n"]),
        lambda: spool.cut_rejects("a.csv", 4),
    ):
        with pytest.raises(OSError, match=str(rejects)) as caught:
            write()
        assert caught.value.errno == errno.ELOOP
    spool.cut_rejects("a.csv", 0)

    assert not rejects.is_symlink()
    assert outside.read_text() == "not ours"


def test_nothing_stays_open(spool: Spool) -> None:
    """Neither after a use, nor after one that has failed, on the way or in the folder."""
    spool.prepare()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.csv", "b.csv"):
        take(spool, name)
        spool.add_rejects(name, 0, [b"one\n"])
        spool.cut_rejects(name, 2)
    spool.finish("a.csv")
    spool.reject("b.csv", "why")
    os.mkfifo(spool.incoming / "c.csv")
    with pytest.raises(OSError, match="only regular files"):
        spool.open(Candidate("c.csv", closed=True))
    spool.refuse("c.csv", "why")
    assert spool.waiting() == 0
    spool.done.rename(spool.path / "aside")
    spool.done.symlink_to("aside")
    for use in (spool.leftovers, spool.prepare, lambda: spool.scan({})):
        with pytest.raises(NotADirectoryError, match="a symbolic link"):
            use()

    assert len(os.listdir("/proc/self/fd")) == before
