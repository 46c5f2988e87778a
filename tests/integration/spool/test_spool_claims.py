"""A file from its claim to where it ends; nobody reaches or overwrites it on the way."""

import errno
import os

import pytest
from claiming import SETTLE_S, Clock, claim, files, take

from syncd.spool import Candidate, Refuse, Spool, Taken, printable

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
