"""A database that is locked, damaged or newer: told with what to do, and left untouched."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from processes import start_daemon, start_sandbox
from watched import BIG, content, drained, events, refused, until


def test_a_producer_that_keeps_the_database_locked_is_waited_out(tmp_path: Path) -> None:
    """Longer than the daemon waits for a lock: `status` says what it waits for, and it goes on."""
    with (
        start_sandbox(tmp_path, "--latency", "0.2") as sandbox,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        daemon.insert(("run", "name", '{"mark": 1}'))
        until(lambda: sandbox.stats()["requests"], daemon, "a request")
        with closing(sqlite3.connect(daemon.database, isolation_level=None)) as rude:
            rude.execute("BEGIN IMMEDIATE")
            until(lambda: daemon.status()["daemon"]["state"] == "waiting", daemon, "waiting")
            assert "locked by another process" in daemon.status()["daemon"]["reason"]
            rude.execute("ROLLBACK")

        drained(daemon)
        assert daemon.status()["daemon"]["state"] == "running"
        assert {"store.unavailable", "store.available"} <= set(events(daemon))
        assert sandbox.stats()["by_status"] == {"200": 1}, "none was sent again"


def damaged_head(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(os.urandom(100))


def damaged_schema(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(8092))


def cut_short(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def damaged_inside(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(8192 * 3)
        file.write(os.urandom(8192 * 40))


def damaged_in_one_page(database: Path) -> None:
    """One that no start has any need to look at."""
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute(
            "SELECT max(pageno) FROM dbstat WHERE name = 'outbox' AND pagetype = 'leaf'"
        ).fetchone()
    db.close()
    with database.open("r+b") as file:
        file.seek(8192 * (page - 1))
        file.write(os.urandom(8192))


@pytest.mark.parametrize(
    "damage",
    [
        damaged_inside,
        damaged_in_one_page,
        cut_short,
        pytest.param(damaged_head, marks=pytest.mark.long),
        pytest.param(damaged_schema, marks=pytest.mark.long),
    ],
)
def test_a_corrupt_database_is_refused_untouched(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """The daemon says how to recover, and so does `check`; the file stays as it was found."""
    with (
        start_sandbox(tmp_path) as sandbox,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        daemon.syncd("pause")
        daemon.insert(*[(f"run_{n}", BIG, None) for n in range(60)])
        daemon.stop()
        damage(daemon.database)
        before = content(daemon.database.parent)

        code, words = refused(daemon)
        checked = daemon.syncd("check")

        assert code == 1
        assert ".recover" in words
        assert content(daemon.database.parent) == before
        assert checked.returncode == 1
        assert ".recover" in checked.stdout
        assert sandbox.stats()["requests"] == 0


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    with start_sandbox(tmp_path) as sandbox, start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.stop()
        with closing(sqlite3.connect(daemon.database)) as db:
            db.execute("PRAGMA user_version = 99")
        before = content(daemon.database.parent)

        code, words = refused(daemon)

        assert code == 1
        assert "schema version 99 is newer" in words
        assert "upgrade syncd" in words
        assert content(daemon.database.parent) == before
