"""The database as a file: opened again, brought up to date, refused where it is not ours."""

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from stores import made

from syncd.cli.door import opened
from syncd.store import StoreError, StoreUnavailable, integrity, read, schema
from syncd.store.schema import open_reader, open_writer

INDEX_OF_TURNS = "CREATE INDEX lanes_turn ON lanes ((failures > 1), due_at)"


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_a_new_database_is_ours_and_up_to_date(tmp_path: Path) -> None:
    path = made(tmp_path / "state" / "syncd.db")

    with closing(open_reader(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.newest(),)
        assert db.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_opening_it_again_changes_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "syncd.db")
    before = fingerprint(path)

    made(path)

    assert fingerprint(path) == before


@pytest.mark.parametrize("opener", [open_writer, open_reader])
def test_no_new_database_takes_from_the_log_of_one_that_was_moved(
    tmp_path: Path, opener: Callable[[Path], sqlite3.Connection]
) -> None:
    """As after a kill: what was accepted last is in the log alone."""
    path, away = made(tmp_path / "syncd.db"), tmp_path / "away.db"
    log = Path(f"{path}-wal")
    with closing(open_writer(path)) as db:
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'x')")
        path.rename(away)
        before = fingerprint(log)
        with pytest.raises(StoreError, match=r"put the database back beside syncd\.db-wal"):
            opener(path)
        assert fingerprint(log) == before
        assert not path.exists()
        away.rename(path)
    with closing(open_reader(path)) as db:
        assert db.execute("SELECT workflow_run_id FROM outbox").fetchall() == [("r",)]


def test_every_table_is_strict_and_every_migration_has_its_number() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        scripts = schema._migrations()
        for _, script in scripts:
            db.executescript(script)
        loose = db.execute(
            "SELECT name FROM pragma_table_list"
            " WHERE schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'"
        ).fetchall()

    assert loose == []
    assert [number for number, _ in scripts] == list(range(1, len(scripts) + 1))


def test_a_newer_schema_is_refused_and_its_file_left_alone(tmp_path: Path) -> None:
    path = made(tmp_path / "syncd.db")
    changed(path, f"PRAGMA user_version = {schema.newest() + 1}")
    before = fingerprint(path)

    for opener in (open_writer, open_reader):
        with pytest.raises(StoreError, match=f"schema version {schema.newest() + 1} is") as refused:
            opener(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert str(refused.value).endswith("upgrade syncd")

    assert fingerprint(path) == before


@pytest.mark.parametrize("version", [0, 1, 99])
def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "theirs.db"
    changed(path, "CREATE TABLE t (a)", f"PRAGMA user_version = {version}")
    before = fingerprint(path)

    with pytest.raises(StoreError, match="not a database of syncd: name another file"):
        open_writer(path)

    assert fingerprint(path) == before


@pytest.mark.parametrize("content", [b"not a database\n" * 100, b"SQLite format 3\x00garbage" * 99])
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "syncd.db"
    path.write_bytes(content)

    with pytest.raises(StoreError) as refused:
        open_writer(path)

    assert not isinstance(refused.value, StoreUnavailable), "waiting will not change that"
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        (b"tableoutboxoutbox", b"tableoutb\x83xoutb\x83x"),
        (b"CREATE TABLE outbox", b"CREATE TABLE outb\x83x"),
        (b"  attempts ", b"  attemp\xffs "),
        (b"  attempts ", b"  attempxs "),
        (b"tablefactsfacts", b"tablefactxfactx"),
    ],
)
def test_a_damaged_schema_is_one_line_for_readers_and_left_alone(
    tmp_path: Path, name: bytes, damaged: bytes
) -> None:
    """SQLite's words about it may not even be UTF-8."""
    path = made(tmp_path / "syncd.db")
    content = path.read_bytes()
    assert content.count(name) == 1
    path.write_bytes(content.replace(name, damaged))
    before = fingerprint(path)

    with pytest.raises(StoreError, match="recover") as refused:
        read_all(path)

    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert fingerprint(path) == before


def read_all(path: Path) -> None:
    with opened(open_reader, path) as db:
        read.outbox(db, 0.0)
        list(read.patches(db, 0.0))
        list(integrity.flaws(db))


def test_a_database_whose_schema_cannot_be_told_is_not_written(tmp_path: Path) -> None:
    path = made(tmp_path / "syncd.db")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"tableoutboxoutbox", b"tableoutb\x83xoutb\x83x"))
    before = fingerprint(path)

    with pytest.raises(StoreError, match="recover"):
        open_writer(path)

    assert fingerprint(path) == before


@pytest.mark.parametrize("damaged", [b"run\x837", b"run\xff7", b"run\xc27"])
def test_a_run_id_that_is_not_utf8_is_no_damage_of_the_database(
    tmp_path: Path, damaged: bytes
) -> None:
    """Delivery parks its patch: neither a start nor a check makes more of it."""
    path = made(tmp_path / "syncd.db")
    changed(path, "INSERT INTO outbox (workflow_run_id, name) VALUES ('run_7', 'n')")
    path.write_bytes(path.read_bytes().replace(b"run_7", damaged))

    with closing(open_reader(path)) as db:
        flaws = list(integrity.flaws(db))
    with closing(open_writer(path)) as db:
        states = db.execute("SELECT state FROM outbox").fetchall()
        with pytest.raises(sqlite3.IntegrityError, match="1 to 255 characters"):
            db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('', 'n')")

    assert flaws == []
    assert states == [("pending",)]


def test_a_state_that_is_none_is_damage_for_everybody(tmp_path: Path) -> None:
    """The patch would never be sent, and never be missed."""
    path = made(tmp_path / "syncd.db")
    changed(
        path,
        "INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')",
        "PRAGMA ignore_check_constraints = ON",
        "UPDATE outbox SET state = 'pendinh'",
    )

    with closing(open_reader(path)) as db:
        flaws = list(integrity.flaws(db))
    with pytest.raises(StoreError, match="patch 1 is in no state that a patch can be in"):
        open_writer(path)

    assert flaws[0] == "damaged: patch 1 is in no state that a patch can be in"


def of_version(path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database as the syncd of that schema version has made it, closed."""
    scripts = schema._migrations()[:version]
    with monkeypatch.context() as older:
        older.setattr(schema, "_migrations", lambda: scripts)
        return made(path)


@pytest.mark.parametrize("second", ["SELECT 1", INDEX_OF_TURNS], ids=["without", "with"])
def test_a_database_of_the_second_version_is_taken_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """For a while the second migration had made the third one's index too."""
    path = of_version(tmp_path / "syncd.db", 2, monkeypatch)
    changed(path, second)

    with closing(open_writer(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.newest(),)


def test_a_database_with_runs_in_trouble_is_taken_along_with_what_is_deferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fifth version kept no counter of it. Of run d nothing waits any more."""
    path = of_version(tmp_path / "syncd.db", 5, monkeypatch)
    changed(
        path,
        "INSERT INTO sqlite_sequence VALUES ('outbox', 65533)",  # two stretches of the index
        "INSERT INTO outbox (workflow_run_id, name)"
        " VALUES ('a', '1'), ('b', '2'), ('a', '3'), ('c', '4'), ('a', '5'), ('d', '6')",
        "UPDATE outbox SET state = 'held', reason = 'operator' WHERE workflow_run_id = 'd'",
        "INSERT INTO lanes VALUES ('a', 100.5, 1, 1, '{}', 0.0), ('c', 101.5, 1, 1, '{}', 0.0),"
        " ('d', 102.5, 1, 1, '{}', 0.0)",
    )

    with closing(open_writer(path)) as db:
        deferred = {
            now: read.outbox(db, now)["outbox"]["deferred"] for now in (0.0, 100.4, 100.5, 101.5)
        }
        flaws = list(integrity.flaws(db))

    assert deferred == {0.0: 4, 100.4: 4, 100.5: 1, 101.5: 0}
    assert flaws == []


def test_a_migration_that_was_cut_off_is_done_again_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "syncd.db"
    good = schema._migrations()
    cut = [(number, script + "\nINSERT INTO nowhere VALUES (1);") for number, script in good]
    monkeypatch.setattr(schema, "_migrations", lambda: cut)
    with pytest.raises(StoreError, match="nowhere"):
        open_writer(path)
    monkeypatch.undo()

    with closing(open_writer(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.newest(),)
        assert db.execute("SELECT count(*) FROM counters").fetchone() == (6,)


def test_a_database_of_two_names_is_not_written(tmp_path: Path) -> None:
    """SQLite keeps a log beside each: what was committed by one name is not there by the other."""
    path, other = made(tmp_path / "syncd.db"), tmp_path / "other.db"
    os.link(path, other)

    for name in (path, other):
        with pytest.raises(StoreError, match=f"{name}: has 2 hard links, .* -samefile {name}"):
            open_writer(name)
    other.unlink()

    open_writer(path).close()


def test_readers_say_so_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database here yet"):
        open_reader(tmp_path / "syncd.db")

    assert os.listdir(tmp_path) == []


def test_readers_cannot_write(tmp_path: Path) -> None:
    path = made(tmp_path / "syncd.db")

    with (
        closing(open_reader(path)) as db,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")


def test_who_keeps_the_database_locked_is_noticed_and_nothing_changed(tmp_path: Path) -> None:
    """Not even the log of a process that was killed, with what it holds."""
    path, copy = made(tmp_path / "a.db"), tmp_path / "syncd.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('r', 'n')")
        for end in ("", "-wal"):
            Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
        before = fingerprint(copy), fingerprint(Path(f"{copy}-wal"))
        with closing(open_reader(path)), closing(open_reader(copy)):
            writer.execute("BEGIN IMMEDIATE")
            busy, free = schema.locked(path, 0.0), schema.locked(copy, 0.0)
            writer.execute("ROLLBACK")

    assert f"{path}: locked by another process" in str(busy)
    assert free is None
    assert (fingerprint(copy), fingerprint(Path(f"{copy}-wal"))) == before


def test_a_path_with_signs_that_mean_something_in_a_uri_is_only_a_path(tmp_path: Path) -> None:
    path = made(tmp_path / "a?mode=memory#x%20 ü.db")

    assert path.exists()
    with closing(open_reader(path)) as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
