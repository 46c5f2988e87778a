"""A database is made whole, once, and with the mode it should have; never in place of another."""

import os
import sqlite3
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest
from stores import made

from syncd.store import StoreError, schema
from syncd.store.schema import open_reader, open_writer


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("opener", [open_writer, open_reader])
@pytest.mark.parametrize("rest", [b"", b"S", b"SQLite format 3\0"])
def test_what_is_too_short_for_a_database_is_no_new_one(
    tmp_path: Path, opener: Callable[[Path], sqlite3.Connection], rest: bytes
) -> None:
    """A power loss leaves such files. What was in it is not there: nobody is to think it is."""
    path = tmp_path / "syncd.db"
    path.write_bytes(rest)

    with pytest.raises(StoreError, match=r"damaged: is .*which no database is: put it back from"):
        opener(path)

    assert path.read_bytes() == rest
    assert os.listdir(tmp_path) == ["syncd.db"]


def test_a_database_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its making was cut off, what that has left is in nobody's way."""
    path = tmp_path / "syncd.db"
    newest, script = schema._migrations()[-1]
    broken = [*schema._migrations()[:-1], (newest, f"{script}\nINSERT INTO nowhere VALUES (1);\n")]
    monkeypatch.setattr(schema, "_migrations", lambda: broken)
    with pytest.raises(StoreError, match="nowhere"):
        open_writer(path)
    monkeypatch.undo()
    for end in ("", "-wal", "-journal"):
        Path(f"{path}.new{end}").write_bytes(b"of one that was killed")

    assert not path.exists()
    with closing(open_writer(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")
        assert set(os.listdir(tmp_path)) == {"syncd.db", "syncd.db-wal", "syncd.db-shm"}


@pytest.mark.parametrize("attempt", range(8))
def test_first_opens_at_once_make_one_database(tmp_path: Path, attempt: int) -> None:
    openers, path = 6, tmp_path / "syncd.db"
    together = Barrier(openers)

    def open_it() -> int:
        together.wait()
        with closing(open_writer(path)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0])

    with ThreadPoolExecutor(openers) as threads:
        opened = [threads.submit(open_it) for _ in range(openers)]

    assert [one.result() for one in opened] == [schema.newest()] * openers


def test_a_new_database_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = made(tmp_path / "state" / "syncd.db")
    finally:
        os.umask(before)

    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


@pytest.mark.parametrize(("access", "expected"), [("read", 0o640), ("write", 0o660)])
def test_the_group_gets_in_where_the_operator_says_so(
    tmp_path: Path, access: str, expected: int
) -> None:
    path = tmp_path / "syncd.db"

    with closing(open_writer(path, access)) as db:
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")
        modes = {file.name: mode(file) for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(["syncd.db", "syncd.db-wal", "syncd.db-shm"], expected)


def test_the_mode_of_a_database_that_is_there_is_left_alone_unless_asked(tmp_path: Path) -> None:
    path = made(tmp_path / "syncd.db")
    path.chmod(0o644)

    made(path)
    assert mode(path) == 0o644
    open_writer(path, "none").close()
    assert mode(path) == 0o600


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError) as refused:
        open_writer(tmp_path / "file" / "syncd.db")

    assert str(refused.value).count("\n") == 0
    assert "check" in str(refused.value)
