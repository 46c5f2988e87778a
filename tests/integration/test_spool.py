"""The spool on a real file system: what is taken, what waits, what is refused, where it ends."""

import asyncio
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asyncinotify import Mask

from syncd.spool import Candidate, Refuse, Spool, Taken, printable
from syncd.spool.ready import Sight, Stage, Take, Wait, Writer, judge
from syncd.spool.watch import Watch, advance
from syncd.spool.writers import writer_of

SETTLE_S = 2.0
SOON_S = 10.0  # a bound on waiting for what comes at once


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Spool:
    spool = Spool(tmp_path / "spool", SETTLE_S, 1 << 30, clock=clock)
    spool.prepare()
    return spool


def ready(spool: Spool, **stages: Stage) -> list[str]:
    return [candidate.name for candidate in spool.scan(stages).ready]


def claim(spool: Spool, name: str) -> Taken:
    taken = spool.claim(spool.open(Candidate(name, closed=True)))
    assert isinstance(taken, Taken)
    return taken


def take(spool: Spool, name: str, text: str = "x") -> None:
    """Drop a file and claim it."""
    (spool.incoming / name).write_text(text)
    claim(spool, name).file.close()


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.is_file()}


# What is taken, and when


def test_a_folder_that_is_open_to_a_group_stays_so(tmp_path: Path, clock: Clock) -> None:
    """Those that are made are for their owner to write to, whatever the umask allows."""
    incoming = tmp_path / "spool/incoming"
    incoming.mkdir(parents=True)
    incoming.chmod(0o2770)
    before = os.umask(0)
    try:
        Spool(tmp_path / "spool", 1.0, 1 << 20, clock=clock).prepare()
        Spool(tmp_path / "other", 1.0, 1 << 20, clock=clock).prepare()
    finally:
        os.umask(before)

    assert stat.S_IMODE(incoming.stat().st_mode) == 0o2770
    assert stat.S_IMODE((tmp_path / "other/incoming").stat().st_mode) == 0o750


def test_files_are_taken_oldest_first_and_by_name_among_equals(spool: Spool) -> None:
    for name, mtime in (("b", 200), ("a", 200), ("z", 100), ("c", 300)):
        path = spool.incoming / f"{name}.json"
        path.write_text("{}")
        os.utime(path, (mtime, mtime))

    assert ready(spool) == ["z.json", "a.json", "b.json", "c.json"]


@pytest.mark.parametrize("name", [".a.json", "a.json.tmp", "a.json.part", ".tmp"])
def test_files_that_are_not_there_yet_are_not_looked_at(spool: Spool, name: str) -> None:
    (spool.incoming / name).write_text("{}")
    os.mkfifo(spool.incoming / ".fifo")

    assert ready(spool) == []
    assert spool.scan({}).refused == []
    assert spool.waiting() == 0


def test_a_file_that_somebody_writes_to_waits_however_long_it_is_still(
    spool: Spool, clock: Clock
) -> None:
    path = spool.incoming / "a.jsonl"
    with path.open("w") as writer:
        writer.write("x")
        writer.flush()
        assert ready(spool) == []
        clock.now += 100 * SETTLE_S
        assert ready(spool) == []

    assert spool.scan({}).ready == [Candidate("a.jsonl", closed=True)]


def test_an_empty_file_waits_for_what_may_be_written_into_it(spool: Spool, clock: Clock) -> None:
    (spool.incoming / "a.json").touch()

    first = spool.scan({})
    clock.now += SETTLE_S / 2
    second = spool.scan({})
    clock.now += SETTLE_S / 2

    assert (first.ready, first.look_again_s) == ([], SETTLE_S)
    assert (second.ready, second.look_again_s) == ([], SETTLE_S / 2)
    assert ready(spool) == ["a.json"]


def test_a_hard_link_is_refused_once_it_has_settled(spool: Spool, clock: Clock) -> None:
    outside = spool.path / "outside.json"
    outside.write_text("{}")
    os.link(outside, spool.incoming / "a.json")

    before = spool.scan({})
    clock.now += SETTLE_S
    after = spool.scan({})

    assert (before.ready, before.refused) == ([], [])
    assert [name for name, reason in after.refused if "2 hard links" in reason] == ["a.json"]


def test_placing_a_file_by_link_and_unlink_works(spool: Spool) -> None:
    outside = spool.path / "outside.json"
    outside.write_text("{}")
    os.link(outside, spool.incoming / "a.json")
    assert ready(spool) == []

    outside.unlink()

    assert ready(spool) == ["a.json"]


def test_what_is_no_regular_file_is_refused_and_neither_opened_nor_followed(spool: Spool) -> None:
    secret = spool.path / "secret.json"
    secret.write_text("{}")
    (spool.incoming / "link.json").symlink_to(secret)
    (spool.incoming / "dangling.json").symlink_to(spool.path / "nothing")
    (spool.incoming / "folder.json").mkdir()
    (spool.incoming / "folder.json" / "inside").write_text("x")
    os.mkfifo(spool.incoming / "fifo.json")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(spool.incoming / "socket.json"))

    outlook = spool.scan({})
    for name, reason in outlook.refused:
        spool.refuse(name, reason)

    rejected = spool.path / "rejected"
    assert outlook.ready == []
    assert list(spool.incoming.iterdir()) == []
    assert files(spool.path) == {"secret.json": "{}"}
    assert stat.S_ISFIFO((rejected / "fifo.json").lstat().st_mode)
    assert (rejected / "link.json").is_symlink()
    assert (rejected / "folder.json" / "inside").read_text() == "x"
    assert {
        name: text for name, text in files(rejected).items() if name.endswith("reason.txt")
    } == {
        "link.json.reason.txt": "is a symbolic link: only regular files are read\n",
        "dangling.json.reason.txt": "is a symbolic link: only regular files are read\n",
        "folder.json.reason.txt": "is a folder: only regular files are read\n",
        "fifo.json.reason.txt": "is a FIFO: only regular files are read\n",
        "socket.json.reason.txt": "is a socket: only regular files are read\n",
    }


REGULAR = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("sight", "verdict"),
    [
        (Sight(REGULAR, 9, 1, 0.0), Wait(2.0)),
        (Sight(REGULAR, 9, 1, 0.5), Wait(1.5)),
        (Sight(REGULAR, 9, 1, 2.0), Take(closed=False)),
        (Sight(REGULAR, 9, 1, 0.0, writer=Writer.NONE), Take(closed=True)),
        (Sight(REGULAR, 9, 1, 99.0, writer=Writer.SOME), Wait(None)),
        (Sight(REGULAR, 9, 1, 99.0, Stage.CLOSED, Writer.SOME), Wait(None)),
        (Sight(REGULAR, 9, 1, 0.0, Stage.CLOSED), Take(closed=True)),
        (Sight(REGULAR, 0, 1, 0.0, Stage.CLOSED), Wait(2.0)),
        (Sight(REGULAR, 0, 1, 2.0, Stage.CLOSED), Take(closed=True)),
        (Sight(REGULAR, 9, 1, 99.0, Stage.OPENED), Wait(None)),
        (Sight(REGULAR, 0, 1, 99.0, Stage.OPENED), Wait(None)),
        (Sight(REGULAR, 9, 1, 99.0, Stage.CREATED), Take(closed=False)),
        (Sight(REGULAR, 9, 1, 0.0, Stage.REOPENED), Wait(2.0)),
        (Sight(REGULAR, 9, 1, 2.0, Stage.REOPENED), Take(closed=False)),
        (Sight(REGULAR, 9, 2, 0.0, Stage.CLOSED, Writer.NONE), Wait(2.0)),
    ],
)
def test_where_the_system_tells_less_events_and_stillness_decide(
    sight: Sight, verdict: Take | Wait
) -> None:
    assert judge(sight, SETTLE_S) == verdict


def test_events_tell_who_is_at_work() -> None:
    def after(*masks: Mask) -> Stage:
        stage = Stage.UNSEEN
        for mask in masks:
            stage = advance(stage, mask)
        return stage

    assert after(Mask.CREATE) is Stage.CREATED  # link()
    assert after(Mask.CREATE, Mask.OPEN) is Stage.OPENED
    assert after(Mask.CREATE, Mask.OPEN, Mask.CLOSE_WRITE) is Stage.CLOSED
    assert after(Mask.CREATE, Mask.OPEN, Mask.CLOSE_NOWRITE) is Stage.CREATED
    assert after(Mask.MOVED_TO) is Stage.CLOSED
    assert after(Mask.MOVED_TO, Mask.OPEN) is Stage.REOPENED
    assert after(Mask.MOVED_TO, Mask.OPEN, Mask.CLOSE_NOWRITE) is Stage.CLOSED
    assert after(Mask.OPEN) is Stage.UNSEEN


def test_asking_for_writers_hurts_neither_them_nor_us(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with path.open("a") as file:
                file.write("x")

    writing = threading.Thread(target=write)
    writing.start()
    reader = os.open(path, os.O_RDONLY)
    answers = {writer_of(reader) for _ in range(2000)}
    stop.set()
    writing.join()

    assert answers <= {Writer.SOME, Writer.NONE}
    assert writer_of(reader) is Writer.NONE
    os.close(reader)


# Claiming


def test_a_claimed_file_is_out_of_reach_of_its_producer(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("old")
    taken = claim(spool, "a.json")
    (spool.incoming / "a.json").write_text("new")

    with taken.file:
        assert taken.file.read() == b"old"
    assert spool.leftovers() == ["a.json"]
    assert spool.waiting() == 2
    with pytest.raises(FileExistsError):
        spool.open(Candidate("a.json", closed=True))


def test_a_file_replaced_in_the_last_moment_is_read_and_not_the_one_before(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("old")
    opened = spool.open(Candidate("a.json", closed=True))
    (spool.incoming / ".new").write_text("new")
    (spool.incoming / ".new").rename(spool.incoming / "a.json")

    taken = spool.claim(opened)

    assert isinstance(taken, Taken)
    with taken.file:
        assert taken.file.read() == b"new"


def test_what_was_slipped_in_in_the_last_moment_is_refused(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("old")
    opened = spool.open(Candidate("a.json", closed=True))
    (spool.incoming / "a.json").unlink()
    (spool.incoming / "a.json").symlink_to("/dev/zero")

    assert spool.claim(opened) == Refuse("is a symbolic link: only regular files are read")


def test_opening_never_follows_a_link_nor_waits_for_a_fifo(spool: Spool) -> None:
    (spool.incoming / "link.json").symlink_to("/dev/zero")
    os.mkfifo(spool.incoming / "fifo.json")

    for name, number in (("link.json", errno.ELOOP), ("fifo.json", errno.EINVAL)):
        with pytest.raises(OSError, match=name) as caught:
            spool.open(Candidate(name, closed=True))
        assert caught.value.errno == number


def test_a_file_that_vanishes_is_said_to_be_gone(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("x")
    opened = spool.open(Candidate("a.json", closed=True))
    (spool.incoming / "a.json").unlink()

    with pytest.raises(FileNotFoundError):
        spool.claim(opened)
    with pytest.raises(FileNotFoundError):
        spool.open(Candidate("a.json", closed=True))


def test_reading_can_be_stopped_from_another_thread(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("x")
    with claim(spool, "a.json").file as file:
        file.interrupted = True

        with pytest.raises(InterruptedError):
            file.read(1)


# Where files end


def test_a_finished_file_never_overwrites_another(spool: Spool) -> None:
    for text in ("1", "2", "3"):
        take(spool, "a.b.jsonl.gz", text)
        spool.finish("a.b.jsonl.gz")

    assert files(spool.done) == {
        "a.b.jsonl.gz": "1",
        "a.b.1.jsonl.gz": "2",
        "a.b.2.jsonl.gz": "3",
    }


def test_a_rejected_file_lies_beside_its_reason_and_overwrites_nothing(spool: Spool) -> None:
    for name, reason in (("a.bin", "one"), ("a.bin", "two"), ("b.bin.reason.txt", "three")):
        take(spool, name, reason)
        spool.reject(name, f"because {reason}")
    take(spool, "b.bin", "four")
    spool.reject("b.bin", "because four")

    assert files(spool.path / "rejected") == {
        "a.bin": "one",
        "a.bin.reason.txt": "because one\n",
        "a.1.bin": "two",
        "a.1.bin.reason.txt": "because two\n",
        "b.bin.reason.txt": "three",
        "b.bin.reason.txt.reason.txt": "because three\n",
        "b.1.bin": "four",
        "b.1.bin.reason.txt": "because four\n",
    }
    assert spool.rejected() == 4 - 1  # one of them has the name of a reason


def test_rejected_lines_are_published_when_their_file_is_done(spool: Spool) -> None:
    for text in ("first\n", "second\n"):
        take(spool, "a.csv")
        assert spool.add_rejects("a.csv", 0, [text.encode()]) == len(text)
        assert files(spool.path / "rejected").keys() <= {"a.csv.rejected.jsonl"}
        spool.finish("a.csv")

    assert files(spool.path / "rejected") == {
        "a.csv.rejected.jsonl": "first\n",
        "a.csv.1.rejected.jsonl": "second\n",
    }
    assert list(spool.taking.iterdir()) == []


def test_what_was_not_recorded_of_the_rejects_is_dropped(spool: Spool) -> None:
    take(spool, "a.csv")
    recorded = spool.add_rejects("a.csv", 0, [b"one\n", b"two\n"])
    spool.add_rejects("a.csv", recorded, [b"three\n", b"four\n", b"five\n"])

    end = spool.add_rejects("a.csv", recorded, [b"three\n"])
    spool.finish("a.csv")

    assert end == len(b"one\ntwo\nthree\n")
    assert files(spool.path / "rejected") == {"a.csv.rejected.jsonl": "one\ntwo\nthree\n"}


@pytest.mark.parametrize("name", ["n" * 250 + ".json", "é" * 125 + ".json", "n" * 255])
def test_the_longest_names_find_a_place(spool: Spool, name: str) -> None:
    for _ in range(2):
        take(spool, name)
        spool.add_rejects(name, 0, [b"x\n"])
        spool.finish(name)
        take(spool, name)
        spool.reject(name, "why")

    assert len(files(spool.done)) == 2
    assert len(files(spool.path / "rejected")) == 2 + 2 * 2


def test_a_name_that_is_no_text_is_no_trouble(spool: Spool) -> None:
    name = os.fsdecode(b"\xff\xfe.json")
    take(spool, name)
    spool.finish(name)
    take(spool, name)
    spool.reject(name, "why")

    assert printable(name) == "\\xff\\xfe.json"
    assert os.listdir(spool.done) == [name]


def test_a_file_that_an_operator_has_removed_is_finished_all_the_same(spool: Spool) -> None:
    take(spool, "a.json")
    (spool.taking / "a.json").unlink()

    spool.finish("a.json")
    spool.reject("a.json", "why")

    assert files(spool.done) == files(spool.path / "rejected") == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_stays_where_it_is(spool: Spool, clock: Clock) -> None:
    path = spool.incoming / "a.json"
    path.write_text("{}")
    path.chmod(0)
    spool.scan({})
    clock.now += SETTLE_S

    (candidate,) = spool.scan({}).ready
    with pytest.raises(PermissionError):
        spool.open(candidate)
    assert path.exists()


# Links in place of a folder


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


# Watching


async def wait(watch: Watch) -> None:
    """Wait for news, which must come by an event and not by the passing of time."""
    async with asyncio.timeout(SOON_S):
        await watch.wait(2 * SOON_S)


async def test_a_watch_wakes_for_a_file_moved_in_and_for_one_closed_after_writing(
    spool: Spool,
) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.path / "a.json").write_text("x")
        (spool.path / "a.json").rename(spool.incoming / "a.json")
        await wait(watch)
        assert watch.stages == {"a.json": Stage.CLOSED}

        with (spool.incoming / "b.json").open("w"):
            await wait(watch)
            assert watch.stages["b.json"] is Stage.OPENED
        await wait(watch)
        assert watch.stages["b.json"] is Stage.CLOSED

        claim(spool, "a.json").file.close()
        (spool.incoming / "b.json").unlink()
        await wait(watch)
        assert watch.stages == {}


async def test_a_watch_wakes_for_a_file_that_may_be_readable_now(spool: Spool) -> None:
    """Its producer, or an operator, has given it another mode or owner."""
    path = spool.incoming / "a.json"
    path.write_text("x")
    path.chmod(0)
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        path.chmod(0o600)
        await wait(watch)
        os.chown(path, os.geteuid(), os.getegid())
        await wait(watch)

        assert ready(spool, **watch.stages) == ["a.json"]


async def test_our_own_looks_are_no_news(spool: Spool) -> None:
    (spool.incoming / "a.json").write_text("x")
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        for _ in range(3):
            spool.scan(watch.stages)
        loop = asyncio.get_running_loop()
        began = loop.time()

        await watch.wait(0.05)

        assert loop.time() - began >= 0.05


async def test_a_watch_finds_a_folder_that_was_made_anew(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=0.01) as watch:
        spool.incoming.rmdir()
        await wait(watch)
        await watch.wait(SOON_S)  # there is nothing to watch: no longer than the fallback
        spool.prepare()
        await watch.wait(0.0)
        (spool.incoming / "a.json").write_text("x")
        await wait(watch)

        assert watch.stages == {"a.json": Stage.CLOSED}


async def test_a_watch_finds_the_folder_of_a_spool_that_was_made_anew(spool: Spool) -> None:
    """No event tells that a folder above was moved away."""
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.incoming / "old.json").write_text("x")
        await wait(watch)
        spool.path.rename(spool.path.with_name("aside"))
        spool.prepare()
        await wait(watch)
        assert watch.stages == {}

        (spool.incoming / "a.json").write_text("x")
        await wait(watch)

        assert watch.stages == {"a.json": Stage.CLOSED}


async def test_a_burst_of_events_is_taken_in_at_once(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        for n in range(200):
            (spool.incoming / f"{n}.json").write_text("x")
        await wait(watch)

        assert len(watch.stages) == 200
        assert set(watch.stages.values()) == {Stage.CLOSED}


QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.mark.skipif(QUEUED > 50_000, reason="the system's queue of events is too long to fill")
async def test_what_is_known_is_forgotten_when_events_are_lost(spool: Spool) -> None:
    async with Watch(spool.incoming, fallback_s=SETTLE_S) as watch:
        (spool.incoming / "a.json").write_text("x")
        await wait(watch)
        for n in range(QUEUED // 2 + 10):
            with (spool.incoming / f".{n % 2}").open("w"):
                pass
        while watch.stages.get("a.json"):
            await wait(watch)

        assert ready(spool) == ["a.json"]
