"""The spool on a real file system: what is taken, what waits, what is refused."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from asyncinotify import Mask
from claiming import SETTLE_S, Clock, files, ready

from syncd.spool import Candidate, Spool
from syncd.spool.ready import Sight, Stage, Take, Wait, Writer, judge
from syncd.spool.watch import advance
from syncd.spool.writers import writer_of


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
