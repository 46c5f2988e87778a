"""The commands while no daemon runs: readers read the file, producers write it, verbs change it."""

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from processes import Running, environment, in_use, syncd, until_it_waits_for
from stores import NOON, delivered, opened

from syncd.cli import main
from syncd.cli.awaited import ROWS, look_at_all, look_at_batch, look_at_run
from syncd.cli.door import Door
from syncd.config import Config, locate
from syncd.core.patch import Patch
from syncd.core.settlement import Delivered
from syncd.store.accept import accept, close_batch, open_batch
from syncd.store.connection import transaction
from syncd.store.schema import open_writer

DOWN = "syncd: the daemon is not running: this is what its database holds\n"
UNMOVED = "syncd: nothing moves until the daemon runs: waiting for it\n"

STATUS_SHAPE = {
    "daemon": {"running", "state", "reason", "pid", "version", "started_at", "now", "moved"},
    "outbox": {
        "pending",
        "deferred",
        "in_flight",
        "held",
        "dead",
        "delivered",
        "discarded",
        "suspect",
        "oldest_pending_s",
    },
    "snapshots": {"count"},
    "gate": {"limit_per_s", "rate_per_s", "max_in_flight", "window", "closed_until", "breaker"},
    "throughput": {"delivered_per_s_1m", "requests_per_s_1m"},
    "spool": {"waiting", "rejected"},
}


def database(folder: Path) -> Path:
    return folder / "state/syncd/syncd.db"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def enqueue(*runs: str, folder: Path) -> None:
    """Hand in a patch for each of the runs, in that order."""
    patches = "".join(json.dumps({"workflow_run_id": run, "name": "x"}) + "\n" for run in runs)
    syncd("enqueue", "--file", "-", "--format", "jsonl", folder=folder, input=patches)


@pytest.mark.parametrize("command", ["status", "check", "list", "enqueue r --name x", "run"])
def test_a_log_without_its_database_is_told_and_left_alone(tmp_path: Path, command: str) -> None:
    """What was accepted last is in there: a new database would take it away."""
    log = database(tmp_path).with_name("syncd.db-wal")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"frames")

    found = syncd(*command.split(), folder=tmp_path, SYNCD_API__TOKEN="token")

    told = " ".join((found.stdout + found.stderr).split())
    assert (
        "is not there, but its log is there, with what was accepted last: put the database" in told
    )
    assert found.returncode != 0
    assert log.read_bytes() == b"frames"
    assert not database(tmp_path).exists()


def test_status_without_anything_is_stopped_and_empty(tmp_path: Path) -> None:
    """Before the first start there is no database; that is no error, but exit code 3."""
    found = syncd("status", "--json", folder=tmp_path)

    status = json.loads(found.stdout)
    assert found.returncode == 3
    assert status["daemon"]["running"] is False
    assert status["daemon"]["state"] == "stopped"
    assert status["outbox"]["pending"] == 0
    assert status["gate"]["limit_per_s"] == 8.0
    assert not database(tmp_path).exists()


def test_status_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    """Every key of the contract's section 5 is there while the daemon is down, too."""
    syncd("enqueue", "run_1", "--name", "x", folder=tmp_path)

    status = json.loads(syncd("status", "--json", folder=tmp_path).stdout)

    assert {key: set(value) for key, value in status.items() if isinstance(value, dict)} == (
        STATUS_SHAPE
    )
    assert set(status) == {*STATUS_SHAPE, "eta_s", "last_error", "troubles"}
    assert status["outbox"]["pending"] == 1
    assert status["outbox"]["oldest_pending_s"] >= 0
    assert status["eta_s"] is None


def test_status_counts_the_files_of_the_spool(tmp_path: Path) -> None:
    """Drafts are not waiting, and reasons are not rejected files."""
    spool = tmp_path / "state/syncd/spool"
    for name in ("incoming/a.csv", "incoming/.b.csv.tmp", "incoming/c.part"):
        (spool / name).parent.mkdir(parents=True, exist_ok=True)
        (spool / name).write_text("")
    for name in ("rejected/d.txt", "rejected/d.txt.reason.txt"):
        (spool / name).parent.mkdir(parents=True, exist_ok=True)
        (spool / name).write_text("")

    status = json.loads(syncd("status", "--json", folder=tmp_path).stdout)

    assert status["spool"] == {"waiting": 1, "rejected": 1}


def test_the_screen_says_what_to_do_next(tmp_path: Path) -> None:
    """People get a screen of plain text, without escape sequences where there is no terminal."""
    syncd("enqueue", "run_1", "--name", "x", folder=tmp_path)
    syncd("hold", "1", folder=tmp_path)

    screen = syncd("status", folder=tmp_path).stdout

    assert "stopped" in screen
    assert "syncd list --state held" in screen
    assert "\x1b" not in screen


def test_readers_say_that_the_daemon_is_down(tmp_path: Path) -> None:
    """The note goes to stderr, once; stdout holds nothing but rows."""
    syncd("enqueue", "run_1", "--name", "x", folder=tmp_path)

    found = syncd("list", "--json", folder=tmp_path)

    assert found.stderr == DOWN
    assert [row["id"] for row in lines(found.stdout)] == [1]


def test_list_rows_hold_what_the_contract_says(tmp_path: Path) -> None:
    """Numbers of the metadata come back exactly as they were written."""
    syncd("enqueue", "run_1", "--metadata", '{"amount": 1.50, "n": 1e3}', folder=tmp_path)

    found = syncd("list", "--json", folder=tmp_path).stdout

    promised = {
        "id", "workflow_run_id", "name", "metadata", "state", "attempts", "next_attempt_at",
        "last_error", "batch", "created_at", "delivered_at",
    }  # fmt: skip
    assert promised <= set(json.loads(found))
    assert '"amount": 1.50' in found
    assert '"n": 1e3' in found


def test_list_selects_by_state_run_and_limit(tmp_path: Path) -> None:
    """The selections can be combined."""
    enqueue("a", "a", "b", folder=tmp_path)
    syncd("hold", "2", folder=tmp_path)

    def ids(*options: str) -> list[object]:
        found = syncd("list", "--json", *options, folder=tmp_path)
        return [row["id"] for row in lines(found.stdout)]

    assert ids("--state", "held") == [2]
    assert ids("--run", "a", "--state", "pending") == [1]
    assert ids("--limit", "1") == [2]
    assert ids("--state", "delivered") == []


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("what", ["list", "batches", "runs"])
def test_a_list_that_is_cut_says_so(tmp_path: Path, what: str, as_json: tuple[str, ...]) -> None:
    """On stderr, where it is no row; and only if there is more."""
    enqueue("a", "b", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("INSERT INTO batches (name, source, created_at) VALUES ('f', 'spool', 0)")
        db.executemany(
            "INSERT INTO snapshots (workflow_run_id, fetched_at, patch_ids, last_patch_id, body)"
            " VALUES (?, 0, '[]', 1, x'')",
            [("a",), ("b",)],
        )
    db.close()

    cut = syncd(what, "--limit", "1", *as_json, folder=tmp_path)
    whole = syncd(what, "--limit", "2", *as_json, folder=tmp_path)
    huge = syncd(what, "--limit", str(10**30), *as_json, folder=tmp_path)

    header = 0 if as_json else 1
    assert (cut.returncode, whole.returncode) == (0, 0)
    assert len(cut.stdout.splitlines()) == header + 1
    assert cut.stderr == DOWN + "syncd: only the first 1: --limit shows more\n"
    assert len(whole.stdout.splitlines()) == header + 2
    assert whole.stderr == huge.stderr == DOWN
    assert len(huge.stdout.splitlines()) == header + 2


def test_a_reader_without_a_database_is_one_line(tmp_path: Path) -> None:
    """There is nothing to read yet: exit code 1, what and what to do."""
    found = syncd("list", folder=tmp_path)

    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert "no database here yet" in found.stderr


def test_a_database_that_nobody_has_made_yet_is_none(tmp_path: Path) -> None:
    """SQLite's own shell leaves an empty file behind when it is asked for a table too early."""
    (tmp_path / "empty.db").touch()

    found = syncd("list", folder=tmp_path, SYNCD_STORE__PATH=str(tmp_path / "empty.db"))

    assert found.returncode == 1
    assert "no database here yet" in found.stderr


@pytest.mark.parametrize("command", ["run", "list", "check", "pause", "enqueue r --name n"])
def test_a_folder_is_no_database_and_stays_as_it_is(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)

    settings = {"SYNCD_STORE__PATH": str(folder), "SYNCD_API__TOKEN": "t"}
    found = syncd(*command.split(), folder=tmp_path, **settings)

    assert found.returncode == 1
    assert f"{folder}: not a file: name another one in store.path" in found.stderr + found.stdout
    assert "Traceback" not in found.stderr
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert not (tmp_path / "folder.lock").exists()


@pytest.mark.parametrize(
    "command",
    [
        *("check", "run", "status", "list", "why 1", "plan", "runs", "show r", "batches"),
        *("enqueue r --name n", "retry --all", "pause"),
    ],
)
def test_a_damaged_schema_is_one_line_for_every_command(tmp_path: Path, command: str) -> None:
    """What, where, what to do; and the file is as it was."""
    enqueue("r", folder=tmp_path)
    path = database(tmp_path)
    damaged = path.read_bytes().replace(b"tableoutboxoutbox", b"tableoutb\x83xoutb\x83x")
    path.write_bytes(damaged)

    found = syncd(*command.split(), folder=tmp_path, SYNCD_API__TOKEN="t")

    said = [line for line in (found.stdout + found.stderr).splitlines() if ".recover" in line]
    assert found.returncode == 1
    assert len(said) == 1
    assert str(path) in said[0]
    assert "Traceback" not in found.stderr
    assert path.read_bytes() == damaged


def test_a_full_output_is_one_line_and_what_was_done_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "syncd", "enqueue", "run_1", "--name", "x"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr == "syncd: no space left to write this to; what was done holds\n"
    assert len(syncd("list", "--json", folder=tmp_path).stdout.splitlines()) == 1


def test_show_names_the_run_it_does_not_know(tmp_path: Path) -> None:
    """A run that was never answered has no snapshot."""
    syncd("enqueue", "run_1", "--name", "x", folder=tmp_path)

    found = syncd("show", "run_1", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr == DOWN + (
        "syncd: no snapshot of run_1: nothing was delivered to it yet; look with"
        " `syncd list --run`\n"
    )


def test_verbs_change_the_file_while_the_daemon_is_down(tmp_path: Path) -> None:
    """Hold, release and discard say how many they touched."""
    enqueue("a", "b", "c", folder=tmp_path)

    held = syncd("hold", "1", "2", folder=tmp_path)
    released = syncd("release", "--run", "a", "--json", folder=tmp_path)
    discarded = syncd("discard", "--all", folder=tmp_path)

    assert held.stdout == "held 2 patches\n"
    assert json.loads(released.stdout) == {
        "touched": 1,
        "in_flight": 0,
        "superseded": 0,
        "unclear": 0,
        "waiting": 0,
        "left_out": {},
        "stopped": None,
        "wanted": False,
        "asked": False,
        "asked_with": None,
        "daemon": {"state": "stopped", "reason": None, "probe": None},
    }
    assert discarded.stdout == "discarded 3 patches\n"


def test_a_verb_that_misses_a_named_patch_is_trouble(tmp_path: Path) -> None:
    """Whoever names patches wants to know if one was not touched; or a run of which there is none.
    That a run has none in a fitting state is none.
    """
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)

    found = syncd("hold", "1", "99", folder=tmp_path)
    unknown = [syncd(verb, "--run", "b", folder=tmp_path) for verb in ("hold", "release")]
    known = syncd("hold", "--run", "a", folder=tmp_path)

    assert found.stdout == "held 1 patch\n"
    assert found.returncode == 1
    assert [each.returncode for each in unknown] == [1, 1]
    for each in unknown:
        assert each.stderr.endswith("syncd: no patch for run b: look with `syncd list`\n")
    assert (known.returncode, known.stdout, known.stderr) == (0, "held 0 patches\n", DOWN)


def test_a_verb_does_not_work_around_who_holds_the_database(tmp_path: Path) -> None:
    """A daemon that listens elsewhere: it is waited for, but not for ever."""
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)
    with in_use(database(tmp_path)):
        found = syncd("retry", "--all", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "no daemon listens on" in found.stderr


def test_two_verbs_at_once_both_succeed(tmp_path: Path) -> None:
    """Each holds the database for its moment, and waits for the other's."""
    enqueue("a", "b", folder=tmp_path)
    with in_use(database(tmp_path)):
        verbs = [
            Running(f"hold_{n}", ["hold", str(n)], tmp_path, environment(tmp_path)) for n in (1, 2)
        ]
        for verb in verbs:
            until_it_waits_for(database(tmp_path), verb)

    assert [verb.ended() for verb in verbs] == [0, 0]
    assert all("held 1 patch\n" in verb.log() for verb in verbs)


def test_pause_holds_until_resume(tmp_path: Path) -> None:
    """A pause is remembered for the daemon's next start."""
    syncd("enqueue", "a", "--name", "x", folder=tmp_path)

    syncd("pause", folder=tmp_path)
    planned = syncd("plan", folder=tmp_path).stdout
    retried = syncd("retry", "1", folder=tmp_path).stderr
    paused = json.loads(syncd("status", "--json", folder=tmp_path).stdout)["daemon"]
    syncd("resume", folder=tmp_path)
    resumed = json.loads(syncd("status", "--json", folder=tmp_path).stdout)["daemon"]

    assert planned.startswith(f"stopped: {paused['reason']}\n\n")
    assert retried == DOWN + (
        "syncd: patch 1 is pending: nothing to retry, it goes once the daemon runs, after"
        " `syncd resume`: see `syncd why 1`\n"
    )
    assert "paused" in paused["reason"]
    assert resumed["reason"] is None


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
    ("arguments", "complaint"),
    [
        (["frobnicate"], "No such command"),
        (["status", "--colour"], "No such option"),
        (["retry"], "say which patches"),
        (["retry", "1", "--all"], "only one of IDs, --run, --reason and --all"),
        (["retry", "abc"], "'abc': a patch id is a whole number"),
        (["wait"], "say what to wait for"),
        (["wait", "--all", "--patch", "1"], "only one of --batch, --run, --patch and --all"),
        (["wait", "--patch", "1.5"], "'1.5': a patch id is a whole number"),
        (["wait", "--patch", "0"], "0 is not in the range"),
        (["list", "--limit", "many"], "'many': a limit is a whole number"),
        (["sandbox", "--port", "http"], "'http': a port is a whole number"),
        (["why"], "Missing argument"),
        (["why", os.fsdecode(b"\xff")], "not UTF-8"),
        (["plan", "--limit", "0"], "0"),
        (["runs", "--where", "a"], "must be KEY=VALUE"),
        (["list", "--state", "lost"], "lost"),
        (["runs", "--limit", "0"], "0 is not in the range"),
        (["list", "--run", os.fsdecode(b"\xff")], "not UTF-8"),
        (["enqueue"], "say what to hand in"),
        (["enqueue", "r"], "a patch needs a name or metadata"),
        (["enqueue", "..", "--name", "x"], "must not be"),
        (["enqueue", "r", "--set", "a"], "must be KEY=VALUE"),
        (["enqueue", "r", "--metadata", "[1]"], "must be a JSON object"),
        (["enqueue", "--file", "-"], "say --format"),
        (["enqueue", "--file", "a.csv", "--name", "x"], "leave the rest out"),
        (["sandbox", "--faults", "rain=1"], "rain"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """The line says what is wrong and where to read on."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)

    found = capsys.readouterr()
    assert ending.value.code == 2
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert complaint in found.err
    assert "--help" in found.err


def test_every_error_of_the_configuration_is_told(tmp_path: Path) -> None:
    """All at once, one line each, exit code 4."""
    config = tmp_path / "syncd.toml"
    config.write_text("[delivery]\nrate_per_s = -1\nfoldd = true\n")

    found = syncd("status", "--config", config, folder=tmp_path)
    before = syncd("--config", config, "status", folder=tmp_path)

    assert found.returncode == before.returncode == 4
    assert found.stderr == before.stderr
    assert len(found.stderr.splitlines()) == 2
    assert "delivery.rate_per_s = -1" in found.stderr
    assert "delivery.foldd" in found.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`syncd list | head -1` ends without a word on stderr."""
    enqueue(*(f"run_{number}" for number in range(2000)), folder=tmp_path)
    command = f"{sys.executable} -m syncd list --json --limit 2000 | head -1"

    found = subprocess.run(
        command, shell=True, env=environment(tmp_path), capture_output=True, text=True, check=True
    )

    assert len(found.stdout.splitlines()) == 1
    assert found.stderr == DOWN


def test_an_old_batch_is_found_by_its_name(tmp_path: Path) -> None:
    """Whatever has been handed in since; with the lines of it that are no patches."""
    content = '{"workflow_run_id":"r1","name":"x"}\nnonsense\n'
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
    assert "1 line rejected: `syncd enqueue` has named them" in found.stdout


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


def test_a_run_under_suspicion_is_shown_as_such(tmp_path: Path) -> None:
    """In status and in list, from the oldest patch that a late request may carry."""
    enqueue("r1", "r1", "r2", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("INSERT INTO suspects VALUES ('r1', 4102444800, 2, 2, NULL)")
    db.close()

    status = json.loads(syncd("status", "--json", folder=tmp_path).stdout)
    rows = lines(syncd("list", "--json", folder=tmp_path).stdout)
    shown = syncd("list", "--run", "r1", folder=tmp_path).stdout
    unsuspected = syncd("list", "--run", "r2", folder=tmp_path).stdout

    assert status["outbox"]["suspect"] == 1
    assert {row["id"]: row["suspect_until"] for row in rows} == {
        1: None,
        2: "2100-01-01T00:00:00.000Z",
        3: None,
    }
    assert "WATCHED" in shown
    assert "WATCHED" not in unsuspected


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A run may be called anything that is not a control character; an error may hold some."""
    syncd("enqueue", "r\u202e1", "--name", "x", folder=tmp_path)

    table = syncd("list", folder=tmp_path).stdout

    assert "r\\u202e1" in table


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """One line says whose file it is not."""
    database(tmp_path).parent.mkdir(parents=True)
    db = sqlite3.connect(database(tmp_path))
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()

    found = syncd("enqueue", "r", "--name", "x", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "not a database of syncd" in found.stderr


def test_wrong_values_do_not_take_the_brake_away(tmp_path: Path) -> None:
    """The daemon runs on with the settings it has: what is wrong with the new ones is told."""
    enqueue("a", folder=tmp_path)
    config = tmp_path / "syncd.toml"
    config.write_text("[delivery]\nmax_in_flight = 0\n")

    paused = syncd("pause", "--config", config, folder=tmp_path)
    status = syncd("status", "--config", config, "--json", folder=tmp_path)

    assert paused.returncode == 0
    assert "delivery.max_in_flight = 0" in paused.stderr
    assert "paused" in json.loads(status.stdout)["daemon"]["reason"]


@pytest.mark.parametrize(
    "settings", ["[delivery]\nfoldd = true\n", '[store]\npath = "here"\n', "[delivery\n"]
)
def test_settings_that_may_mean_another_database_are_refused(tmp_path: Path, settings: str) -> None:
    config = tmp_path / "syncd.toml"
    config.write_text(settings)

    assert syncd("pause", "--config", config, folder=tmp_path).returncode == 4


@pytest.mark.parametrize(
    "metadata", ['{"a":1e400}', '{"a":"\\ud800"}', '{"a":' + "[" * 998 + "]" * 998 + "}"]
)
def test_a_row_that_strict_readers_refuse_hides_no_other(tmp_path: Path, metadata: str) -> None:
    """SQLite takes it for JSON, so it is in the table, and operators have to see it."""
    enqueue("honest", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("INSERT INTO outbox (workflow_run_id, metadata) VALUES ('odd', ?)", (metadata,))
    db.close()

    listed = syncd("list", folder=tmp_path)
    waited = syncd("wait", "--patch", "2", "--timeout", "0", folder=tmp_path)

    assert {"honest", "odd"} <= set(listed.stdout.split())
    assert listed.stderr == DOWN
    assert waited.returncode == 124


@pytest.mark.parametrize(
    "arguments",
    [
        ("wait", "--batch", ""),
        ("wait", "--batch", ".."),
        ("wait", "--all", "--timeout", "nan"),
        ("wait", "--all", "--timeout", "inf"),
        ("wait", "--patch", str(2**63)),
        ("hold", str(2**64)),
        ("sandbox", "--port", "99999"),
    ],
)
def test_what_can_never_be_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    enqueue("a", folder=tmp_path)

    found = syncd(*arguments, folder=tmp_path)

    assert found.returncode == 2
    assert found.stderr.count("\n") == 1


def test_a_message_that_ends_in_dots_keeps_them(tmp_path: Path) -> None:
    found = syncd("enqueue", "..", "--name", "x", folder=tmp_path)

    assert "workflow_run_id must not be . or ..: see" in found.stderr


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_who_wants_no_colours_on_a_terminal_gets_none(
    tmp_path: Path, variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = os.openpty()
    command = (sys.executable, "-m", "syncd", "status")
    env = environment(tmp_path, **variables)
    subprocess.run(command, env=env, cwd=tmp_path, stdout=theirs, check=False)
    os.close(theirs)

    shown = os.read(ours, 1 << 16)
    os.close(ours)

    assert b"stopped" in shown
    assert (b"\x1b[" in shown) == coloured


def test_a_verb_says_why_it_left_a_named_patch_alone(tmp_path: Path) -> None:
    enqueue("a", "b", folder=tmp_path)
    syncd("discard", "1", folder=tmp_path)

    found = syncd("hold", "1", "2", "3", folder=tmp_path)

    assert (found.returncode, found.stdout) == (1, "held 1 patch\n")
    assert "syncd: patch 1 is discarded: hold is not for it\n" in found.stderr
    assert "syncd: no patch 3: look with `syncd list`\n" in found.stderr


def test_retry_says_of_a_pending_patch_when_it_goes(tmp_path: Path) -> None:
    """Unless it is deferred, as `list` has it: then it is retried. Once: it is due by then."""
    enqueue("a", "b", "b", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute(
            "INSERT INTO lanes (workflow_run_id, upto_id, due_at, failures, failed_at, last_error)"
            " VALUES ('b', 2, 4102444800, 1, 0, '{}')"
        )
    db.close()

    listed = syncd("list", "--state", "deferred", "--json", folder=tmp_path)
    found = syncd("retry", "1", "2", "3", folder=tmp_path)
    again = syncd("retry", "--all", folder=tmp_path)
    due = syncd("retry", "2", folder=tmp_path)
    held = syncd("hold", "1", folder=tmp_path)

    assert [row["id"] for row in lines(listed.stdout)] == [2, 3]
    assert (found.returncode, found.stdout) == (1, "retried 2 patches\n")
    assert (again.returncode, again.stdout) == (0, "retried 0 patches\n")
    assert "patch 2 is pending: nothing to retry" in due.stderr
    assert found.stderr.splitlines()[-1] == (
        "syncd: patch 1 is pending: nothing to retry, it goes once the daemon runs:"
        " see `syncd why 1`"
    )
    assert "patch 2" not in found.stderr
    assert "it goes" not in held.stderr


def test_what_cannot_be_taken_apart_is_left_alone_aloud(tmp_path: Path) -> None:
    """What newer patches have set could not be left out: it takes --force."""
    enqueue("honest", folder=tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        odd = '{"a":"\\ud800"}'
        db.execute("INSERT INTO outbox (workflow_run_id, metadata) VALUES ('r', ?)", (odd,))
    db.close()
    syncd("hold", "2", folder=tmp_path)

    released = syncd("release", "--all", folder=tmp_path)
    forced = syncd("release", "--all", "--force", folder=tmp_path)

    assert released.stdout.startswith("released 0 patches\n1 patch left alone: what newer patches")
    assert forced.stdout == "released 1 patch\n"
