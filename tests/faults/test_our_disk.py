"""A disk that is full or cannot be written to: said where people look, waited out, nothing lost."""

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import feed
import pytest
from disks import small_disk
from oracle import differing, one_by_one
from processes import start_daemon, start_sandbox
from watched import BIG, content, drained, events, refused, until

from syncd.core.patch import Patch
from syncd.store import Store, StoreFull


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


async def test_a_full_disk_is_told_for_as_long_as_it_is_full(tmp_path: Path) -> None:
    """What is tried meanwhile may find nothing to write, or room enough in the log: that proves
    nothing for what was refused."""
    with small_disk(tmp_path / "state", "8m") as disk:
        store = await Store.open(disk.path / "syncd.db", time.time)
        await store.accept([Patch("before", BIG) for _ in range(20)])
        with closing(sqlite3.connect(store.path)) as db:
            db.execute("PRAGMA wal_checkpoint")  # the log begins anew, and there is room in it
        disk.fill()
        with pytest.raises(StoreFull):
            await store.accept([Patch(f"run_{n}", BIG) for n in range(60)])
        await store.close_abandoned(())
        full = store.trouble
        disk.free()
        await store.untrouble(["nobody"])
        unproven = store.trouble
        await store.close_abandoned(())
        over = store.trouble
        await store.close()

    assert full is unproven
    assert "full" in str(full)
    assert over is None


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
        lock = f"{daemon.database}.lock"
        assert words == f"syncd: {lock}: on a read-only file system: mount it for writing"
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
