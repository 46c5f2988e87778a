"""`syncd wait`: what it waits for, and what it says has not arrived."""

import asyncio
import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from commands import DOWN, UNMOVED, database, enqueue
from processes import Running, environment, syncd
from stores import NOON, delivered, opened

from syncd.cli.awaited import ROWS, look_at_all, look_at_batch, look_at_run
from syncd.cli.door import Door
from syncd.config import Config, locate
from syncd.core.patch import Patch
from syncd.core.settlement import Delivered
from syncd.store.accept import accept, close_batch, open_batch
from syncd.store.connection import transaction
from syncd.store.schema import open_writer


def test_wait_runs_into_its_timeout(tmp_path: Path) -> None:
    """Nothing moves while the daemon is down: 124, and the note that it is, once."""
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)

    found = syncd("wait", "--run", "a", "--timeout", "0.5", folder=tmp_path)

    assert found.returncode == 124
    assert found.stderr == f"{DOWN}{UNMOVED}syncd: the time is up: 1 patch to go\n"


def test_wait_tells_files_from_patches(tmp_path: Path) -> None:
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)
    incoming = tmp_path / "state/syncd/spool/incoming"
    incoming.mkdir(parents=True)
    (incoming / "b.jsonl").write_text('{"workflow_run_id": "b", "name": "y"}\n')

    everything = syncd("wait", "--all", "--timeout", "0.3", folder=tmp_path)
    batch = syncd("wait", "--batch", "b.jsonl", "--timeout", "0.3", "--json", folder=tmp_path)

    up = "syncd: the time is up: 1 patch and 1 file to go\n"
    assert everything.stderr == UNMOVED + up
    assert json.loads(batch.stdout) == {
        "result": "timeout",
        "waiting": 0,
        "files": 1,
        "failed": [],
    }


def test_where_nothing_was_ever_handed_in_wait_does_not_say_delivered(tmp_path: Path) -> None:
    """Without a database that is an error: settings may name another one."""
    nowhere = syncd("wait", "--all", folder=tmp_path)
    open_writer(database(tmp_path)).close()
    empty = syncd("wait", "--all", folder=tmp_path)

    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert nowhere.stderr.startswith(f"syncd: {database(tmp_path)}: no database here yet: ")
    assert (empty.returncode, empty.stdout) == (0, "nothing waits\n")


def test_what_waits_of_a_run_is_waited_for_however_much_of_it_is_parked(tmp_path: Path) -> None:
    enqueue(*["r"] * ROWS, folder=tmp_path)
    syncd("hold", "--all", folder=tmp_path)
    parked = syncd("wait", "--run", "r", "--timeout", "0", folder=tmp_path)
    enqueue("r", folder=tmp_path)
    waits = syncd("wait", "--run", "r", "--timeout", "0", folder=tmp_path)

    assert parked.returncode == 1
    assert (waits.returncode, waits.stdout) == (124, "")
    assert waits.stderr.endswith("syncd: the time is up: 1 patch to go\n")


def test_what_is_discarded_counts_where_it_was_asked_for_or_waited_for(tmp_path: Path) -> None:
    """By name whenever it was; of a run or of all there is only since the wait began."""
    enqueue("a", "a", folder=tmp_path)
    syncd("discard", "1", folder=tmp_path)
    environ = environment(tmp_path)
    waits = [
        Running(f"wait{n}", ["wait", *what, "--timeout", "20"], tmp_path, environ)
        for n, what in enumerate((["--all"], ["--run", "a"], ["--patch", "2"]))
    ]
    while not all(UNMOVED in wait.log() for wait in waits):
        assert not any(wait.exit_code for wait in waits)
    syncd("discard", "2", folder=tmp_path)
    codes = [wait.ended() for wait in waits]
    after = [
        syncd("wait", *what, folder=tmp_path)
        for what in (["--all"], ["--run", "a"], ["--patch", "2"], ["--batch", "stdin"])
    ]

    assert codes == [1, 1, 1]
    for wait in waits:
        assert wait.log().endswith("patch 2 for a is discarded by an operator\n")
        assert "patch 1" not in wait.log()
    assert [(found.returncode, found.stdout.count("discarded")) for found in after] == [
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 2),
    ]
    assert after[0].stdout == after[1].stdout == "nothing waits\n"


def test_what_an_operator_has_discarded_counts_behind_any_number_of_others(tmp_path: Path) -> None:
    """Those that newer patches have set all of are discarded too, and here there are more of them
    than anybody looks at in one go."""
    to = Door(Config(), locate(Config(), environment(tmp_path)))
    database(tmp_path).parent.mkdir(parents=True)
    with closing(open_writer(to.paths.store)) as db:
        patches = [Patch("r", "x")] * 10_100
        transaction(db, lambda db: accept(db, patches, open_batch(db, "b", "enqueue", NOON), NOON))
        close_batch(db, 1, NOON)
        db.execute(
            "UPDATE outbox SET state = 'discarded', settled_at = ?,"
            " reason = iif(id <= 30, 'operator', 'superseded')",
            (NOON + 1,),
        )
    looks = (look_at_all, partial(look_at_run, "r"), partial(look_at_batch, "b"))

    found = [look(to, NOON) for look in looks]
    later = [bool(look(to, NOON + 2).failed) for look in looks]

    for one in found:
        assert not one.goes_on
        assert one.failed[0] == "patch 30 for r is discarded by an operator"
        assert one.failed[-1] == "and 10 patches more: look with `syncd list`"
        assert len(one.failed) == 21
    assert later == [False, False, True]


async def arrived(path: Path, answer: Delivered) -> None:
    async with opened(path) as store:
        await store.settle([answer])


def test_what_newer_patches_have_set_all_of_is_not_said_to_be_delivered(tmp_path: Path) -> None:
    enqueue("a", "a", folder=tmp_path)
    syncd("hold", "1", folder=tmp_path)
    asyncio.run(arrived(database(tmp_path), delivered("a", 2)))
    released = syncd("release", "1", folder=tmp_path)

    said = syncd("wait", "--patch", "1", folder=tmp_path)
    told = syncd("wait", "--patch", "1", "--json", folder=tmp_path)

    assert "1 patch discarded instead: newer patches have set all of it" in released.stdout
    assert (said.returncode, told.returncode) == (0, 0)
    assert said.stdout == "superseded: newer patches have set all of it\n"
    assert (json.loads(told.stdout)["result"], json.loads(told.stdout)["failed"]) == (
        "superseded",
        [],
    )


def test_wait_names_what_will_not_arrive(tmp_path: Path) -> None:
    """Held patches wait for an operator: waiting for them would be waiting forever."""
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)
    syncd("hold", "--all", folder=tmp_path)

    found = syncd("wait", "--patch", "1", folder=tmp_path)

    assert found.returncode == 1
    assert found.stdout == "patch 1 for a is held by an operator\n"
    assert found.stderr == DOWN


@pytest.mark.parametrize(
    ("rejected", "told"),
    [
        (1, "1 line rejected: `syncd enqueue` has named them"),
        (21, "21 lines rejected: `syncd enqueue` has named the first 20, with --json all of them"),
        (
            1001,
            "1,001 lines rejected: `syncd enqueue` has named the first 20,"
            " with --json the first 1,000",
        ),
    ],
)
def test_an_old_batch_is_found_by_its_name(tmp_path: Path, rejected: int, told: str) -> None:
    """Whatever has been handed in since; with the lines of it that are no patches."""
    content = '{"workflow_run_id":"r1","name":"x"}\n' + "nonsense\n" * rejected
    syncd("enqueue", "--file", "-", "--format", "jsonl", folder=tmp_path, input=content)
    with sqlite3.connect(database(tmp_path)) as db:
        db.executemany(
            "INSERT INTO batches (name, source, created_at) VALUES (?, 'spool', 0)",
            [(f"{n}.csv",) for n in range(60)],
        )
    db.close()
    syncd("discard", "1", folder=tmp_path)

    found = syncd("wait", "--batch", "stdin", "--timeout", "5", folder=tmp_path)

    assert found.returncode == 1
    assert "patch 1 for r1 is discarded by an operator" in found.stdout
    assert found.stdout.endswith(f"\n{told}\n")


def test_a_batch_is_awaited_until_its_file_is_filed(tmp_path: Path) -> None:
    """All in the outbox is not enough: its rejected lines may not lie there to be looked at."""
    enqueue("r1", folder=tmp_path)
    syncd("discard", "1", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("UPDATE batches SET closed_at = NULL")
    db.close()

    found = syncd("wait", "--batch", "stdin", "--timeout", "0.1", folder=tmp_path)

    assert found.returncode == 124
    # Nobody but a daemon closes what a killed command has left; no patch of it is on its way.
    assert found.stderr == f"{DOWN}{UNMOVED}syncd: the time is up: 1 file to go\n"


@pytest.mark.parametrize("where", ["incoming", "taking"])
def test_a_file_on_its_way_is_what_is_awaited(tmp_path: Path, where: str) -> None:
    """And not an older one of its name that is done with."""
    enqueue("r1", folder=tmp_path)
    syncd("discard", "1", folder=tmp_path)
    folder = tmp_path / "state/syncd/spool" / where
    folder.mkdir(parents=True)
    (folder / "stdin").write_text("")

    found = syncd("wait", "--batch", "stdin", "--timeout", "0.1", folder=tmp_path)

    assert found.returncode == 124
