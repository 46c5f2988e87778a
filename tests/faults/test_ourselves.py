"""What else fails on our own side: second daemons, files that change, a clock put back."""

import os
from functools import partial
from pathlib import Path

import pytest
from processes import Daemon, start_daemon, start_sandbox
from watched import drained, refused, until

from syncd.clock import Wall
from syncd.core.outcome import Blame, Trouble
from syncd.core.patch import Patch
from syncd.core.settlement import Deferred
from syncd.store import Cursor, Store

# Others


def test_a_second_daemon_is_refused_and_the_first_does_not_notice(tmp_path: Path) -> None:
    """On the same database, by another name, and when its lock was removed; on the same socket with
    a database of its own; where the socket's path is taken by a file. All the while the first
    delivers, and answers commands."""
    with start_sandbox(tmp_path) as sandbox, start_daemon(tmp_path, sandbox.url) as daemon:
        own = {"path": str(tmp_path / "own" / "syncd.db")}
        spool = {"path": str(tmp_path / "own" / "spool")}
        link = tmp_path / "link.db"
        link.symlink_to(daemon.database)
        second = Daemon(tmp_path / "second", sandbox.url, store={"path": str(link)})
        third = Daemon(
            tmp_path / "third", sandbox.url, store=own, spool=spool, control=at(daemon.socket)
        )
        (tmp_path / "file").write_text("somebody's")
        fourth = Daemon(
            tmp_path / "fourth", sandbox.url, store=own, spool=spool, control=at(tmp_path / "file")
        )

        waited = second.syncd("run")
        same_store = waited.returncode, waited.stderr
        same_socket, no_socket = refused(third), refused(fourth)
        third.configure(sandbox.url, store=own, spool=spool)
        with third.start():  # what was in the way is gone, and nothing was sent by that start
            assert "unclean_start" not in third.log()
        Path(f"{daemon.database}.lock").unlink()
        same_file = refused(second)
        daemon.insert(("run", "name", None))
        drained(daemon)

        assert same_store[0] == same_file[0] == same_socket[0] == no_socket[0] == 1
        held = f"syncd: {link}: another syncd holds this database: stop it"
        assert same_store[1].startswith(held)
        assert same_file[1].startswith(held)
        assert f"another syncd, pid {daemon.pid}, holds this database" in waited.stdout
        assert "fuser" not in waited.stdout
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
