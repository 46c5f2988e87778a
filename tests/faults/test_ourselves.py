"""What fails on our own side: said where people look, waited out, and nothing is lost by it."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import feed
import pytest
from disks import small_disk
from oracle import differing, one_by_one
from processes import PATIENCE_S, Daemon, start_daemon, start_sandbox

from syncd.clock import Wall
from syncd.core.outcome import Blame, Trouble
from syncd.core.patch import Patch
from syncd.core.settlement import Deferred
from syncd.store import Cursor, Store

BIG = "x" * 8000  # two of them do not fit on one page


def until(
    true: Callable[[], object], daemon: Daemon, what: str, timeout: float = PATIENCE_S
) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"never: {what}\n{daemon.log()}"
        time.sleep(0.02)


def drained(daemon: Daemon) -> None:
    waited = daemon.syncd("wait", "--all", "--timeout", "30", timeout=40)

    assert waited.returncode == 0, f"{waited.stderr}\n{daemon.log()}"


def events(daemon: Daemon) -> list[str]:
    return [json.loads(line)["event"] for line in daemon.log().splitlines() if line[:1] == "{"]


def refused(daemon: Daemon) -> tuple[int, str]:
    """Run a daemon that is to refuse: its exit code, and its last words."""
    told = daemon.syncd("run")
    words = told.stderr.strip()
    assert len(words.splitlines()) == 1, told.stdout + told.stderr
    return told.returncode, words


def content(folder: Path) -> dict[str, bytes]:
    """All there is in a folder, but for locks and SQLite's index of its log."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in (".lock", ".db-shm")]
    return {str(path.relative_to(folder)): found for path in kept if (found := path.read_bytes())}


# The disk


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """It fills while answers are on their way: they are kept and settled later, none is sent again;
    a file that comes meanwhile waits too, and `status` tells why."""
    with (
        start_sandbox(tmp_path, "--latency", "0.5") as sandbox,
        small_disk(tmp_path / "state", "24m") as disk,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        draft = daemon.spool / "incoming" / ".late.jsonl.tmp"
        draft.write_bytes(feed.as_jsonl(feed.patches(50, 10, 1, "late")))
        daemon.insert(*[(f"run_{n}", BIG, None) for n in range(12)])
        until(lambda: sandbox.stats()["requests"], daemon, "a request")
        disk.fill()
        draft.rename(draft.with_name("late.jsonl"))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            daemon.insert(("not_accepted", BIG, None))

        until(lambda: daemon.status()["daemon"]["state"] == "waiting", daemon, "waiting")
        assert "full" in daemon.status()["daemon"]["reason"]
        assert "full" in daemon.syncd("status").stdout
        assert daemon.rows("SELECT DISTINCT state FROM outbox") == [("pending",)]
        until(lambda: "intake.waits" in events(daemon), daemon, "intake.waits")
        assert "store.unavailable" in events(daemon)

        disk.free()
        until(lambda: not list(daemon.spool.glob("incoming/late*")), daemon, "the file is taken")
        drained(daemon)
        assert daemon.status()["daemon"]["state"] == "running"
        assert {"store.available", "intake.goes_on"} <= set(events(daemon))
        asked = daemon.rows("SELECT workflow_run_id, name, metadata FROM outbox ORDER BY id")
        assert len(asked) == 12 + 50
        assert differing(one_by_one(asked), sandbox.runs()) == {}
        first = [visit for visit in sandbox.requests() if visit["run"].startswith("run_")]
        assert len(first) == 12, "none was sent again"
        assert daemon.stop() == 0


def test_on_a_full_disk_it_refuses_to_start_and_starts_later(tmp_path: Path) -> None:
    with (
        start_sandbox(tmp_path) as sandbox,
        small_disk(tmp_path / "state", "8m") as disk,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        daemon.syncd("pause")
        daemon.insert(("run", "name", None))
        daemon.stop()
        disk.fill()

        code, words = refused(daemon)
        assert code == 1
        assert "free space" in words
        down = daemon.syncd("status")
        assert down.returncode == 3, down.stderr
        assert daemon.syncd("list", "--json").stdout.count('"pending"') == 1

        disk.free()
        daemon.start()
        daemon.syncd("resume")
        drained(daemon)


def test_where_nothing_can_be_written_it_refuses_to_start(tmp_path: Path) -> None:
    """A read-only file system. Readers go on reading; nothing is touched."""
    with (
        start_sandbox(tmp_path) as sandbox,
        small_disk(tmp_path / "state", "8m") as disk,
        start_daemon(tmp_path, sandbox.url) as daemon,
    ):
        daemon.insert(("run", "name", None))
        drained(daemon)
        daemon.stop()
        disk.read_only(on=True)
        before = content(disk.path)

        code, words = refused(daemon)
        assert code == 1
        assert "Read-only file system" in words
        assert content(disk.path) == before
        down = daemon.syncd("status")
        assert down.returncode == 3, down.stderr
        assert daemon.syncd("show", "run").returncode == 0

        disk.read_only(on=False)
        daemon.start()
        assert daemon.status()["outbox"]["delivered"] == 1


def test_a_spool_that_nobody_can_write_to_is_waited_out(tmp_path: Path) -> None:
    """Its disk is full, then read-only: bad lines and bad files have nowhere to go, and wait."""
    spool = tmp_path / "spool"
    with (
        start_sandbox(tmp_path) as sandbox,
        small_disk(spool, "256k") as disk,
        start_daemon(tmp_path, sandbox.url, spool={"path": str(spool)}) as daemon,
    ):
        good, bad = b'{"workflow_run_id": "run", "name": "good"}\n', b'{"workflow_run_id": "run"}\n'
        for name, text in (("lines.jsonl", good + bad), ("whole.txt", b"?"), ("ro.jsonl", good)):
            (spool / "incoming" / f".{name}").write_bytes(text)
        disk.fill()
        for name in ("lines.jsonl", "whole.txt"):
            (spool / "incoming" / f".{name}").rename(spool / "incoming" / name)
        until(lambda: "intake.waits" in events(daemon), daemon, "intake.waits")
        daemon.insert(("other", "delivered all the same", None))
        waited = daemon.syncd("wait", "--run", "other", "--timeout", "10")
        assert waited.returncode == 0, waited.stderr

        disk.free()
        rejected = ["lines.jsonl.rejected.jsonl", "whole.txt", "whole.txt.reason.txt"]
        until(lambda: len(os.listdir(spool / "rejected")) >= 3, daemon, "rejected")
        until(lambda: not os.listdir(spool / "taking"), daemon, "all is taken")
        assert sorted(os.listdir(spool / "rejected")) == rejected
        assert "intake.goes_on" in events(daemon)

        disk.read_only(on=True)
        daemon.insert(("other", "delivered again", None))
        waited = daemon.syncd("wait", "--run", "other", "--timeout", "10")
        assert waited.returncode == 0, waited.stderr
        disk.read_only(on=False)
        (spool / "incoming" / ".ro.jsonl").rename(spool / "incoming" / "ro.jsonl")
        until((spool / "done" / "ro.jsonl").exists, daemon, "ro.jsonl is done")
        drained(daemon)
        assert daemon.rows("SELECT count(*) FROM outbox") == [(4,)]


def test_status_says_what_the_spool_waits_for(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with (
        start_sandbox(tmp_path) as sandbox,
        small_disk(spool, "256k") as disk,
        start_daemon(tmp_path, sandbox.url, spool={"path": str(spool)}) as daemon,
    ):
        (spool / "incoming" / ".whole.txt").write_bytes(b"?")
        disk.fill()
        (spool / "incoming" / ".whole.txt").rename(spool / "incoming" / "whole.txt")
        until(lambda: "intake.waits" in events(daemon), daemon, "intake.waits")

        assert "No space left" in json.dumps(daemon.status())
        assert "No space left" in " ".join(daemon.syncd("status").stdout.split())


# The database


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


# Others


def test_a_second_daemon_is_refused_and_the_first_does_not_notice(tmp_path: Path) -> None:
    """On the same database; on the same socket with a database of its own; where the socket's path
    is taken by a file. All the while the first delivers, and answers commands."""
    with start_sandbox(tmp_path) as sandbox, start_daemon(tmp_path, sandbox.url) as daemon:
        own = {"path": str(tmp_path / "own" / "syncd.db")}
        spool = {"path": str(tmp_path / "own" / "spool")}
        second = Daemon(tmp_path / "second", sandbox.url, store={"path": str(daemon.database)})
        third = Daemon(
            tmp_path / "third", sandbox.url, store=own, spool=spool, control=at(daemon.socket)
        )
        (tmp_path / "file").write_text("somebody's")
        fourth = Daemon(
            tmp_path / "fourth", sandbox.url, store=own, spool=spool, control=at(tmp_path / "file")
        )

        same_store, same_socket, no_socket = refused(second), refused(third), refused(fourth)
        third.configure(sandbox.url, store=own, spool=spool)
        with third.start():  # what was in the way is gone, and nothing was sent by that start
            assert "unclean_start" not in third.log()
        daemon.insert(("run", "name", None))
        drained(daemon)

        assert same_store[0] == same_socket[0] == no_socket[0] == 1
        assert "another syncd holds this database" in same_store[1]
        assert str(daemon.socket) in same_socket[1]
        assert "not a socket" in no_socket[1]
        assert (tmp_path / "file").read_text() == "somebody's"
        assert daemon.status()["daemon"]["pid"] == daemon.pid


def at(socket: Path) -> dict[str, object]:
    return {"socket": str(socket)}


def test_a_file_that_grows_vanishes_or_is_replaced_costs_nobody_a_patch(tmp_path: Path) -> None:
    """Producers that do not keep to the rules: one writes in place and pauses, one takes its file
    back, one puts another in its place. What was in a file that was taken is in the outbox."""
    lines = [f'{{"workflow_run_id": "run_{n}", "name": "{n}"}}\n' for n in range(4000)]
    with (
        start_sandbox(tmp_path) as sandbox,
        start_daemon(tmp_path, sandbox.url, delivery={"rate_per_s": 1000.0}) as daemon,
    ):
        daemon.syncd("pause")
        incoming, done = daemon.spool / "incoming", daemon.spool / "done"
        with (incoming / "grows.jsonl").open("w") as growing:
            growing.write("".join(lines[:1000]))
            growing.flush()
            with (incoming / "vanishes.jsonl").open("w") as vanishing:
                vanishing.write("".join(lines))
                (incoming / "vanishes.jsonl").unlink()
            daemon.drop("replaced.jsonl", "".join(lines[1000:3000]))
            daemon.drop("replaced.jsonl", "".join(lines[1000:3000]) + "".join(lines[3000:3500]))
            until((done / "replaced.jsonl").exists, daemon, "replaced.jsonl is done")
            assert not (done / "grows.jsonl").exists()
            growing.write("".join(lines[3500:]))
        until((done / "grows.jsonl").exists, daemon, "grows.jsonl is done")
        until(lambda: not os.listdir(incoming), daemon, "all is taken")

        names = {name for (name,) in daemon.rows("SELECT name FROM outbox")}
        assert names == {str(n) for n in range(4000)}
        read = [line for path in done.iterdir() for line in path.read_text().splitlines()]
        assert daemon.rows("SELECT count(*) FROM outbox") == [(len(read),)]


# The clock


async def test_a_clock_that_is_put_back_delays_nothing(tmp_path: Path) -> None:
    """An hour back while a run waits for its next attempt: it is due as long from now as before."""
    system, steady = 1_700_000_000.0, 5000.0
    wall = Wall(lambda: system, lambda: steady)
    store = await Store.open(tmp_path / "syncd.db", wall)
    trouble = Trouble(Blame.SERVER, "http_500", "not now")
    await store.begin(60.0, "boot", wall.booted_at)
    await store.accept([Patch("run", "name")])
    await store.settle([Deferred("run", wall() + 30.0, 1, (1,), trouble)])

    system, steady = system - 3600.0 + 31.0, steady + 31.0
    before = (await store.page(Cursor(), (), 10)).lanes
    step_s = wall.stepped()
    await store.move_instants(wall.booted_at + step_s, step_s, partial(wall.follow, step_s))
    after = (await store.page(Cursor(), (), 10)).lanes
    await store.close()

    assert step_s == pytest.approx(-3600.0)
    assert [lane.run for lane in before] == [lane.run for lane in after] == ["run"]
    assert wall() == pytest.approx(system)
