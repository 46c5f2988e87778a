"""Readers while no daemon runs: what they show of the file, and how they fail."""

import json
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from commands import DOWN, database, enqueue, lines
from processes import environment, syncd

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


@pytest.mark.parametrize("command", ["run", "check", "status", "list", "enqueue r --name n"])
def test_an_empty_file_is_not_taken_for_a_database_in_which_nothing_waits(
    tmp_path: Path, command: str
) -> None:
    """A power loss may have emptied it. SQLite's own shell leaves one, too, where it is asked too
    early: that may be removed."""
    database(tmp_path).parent.mkdir(parents=True)
    database(tmp_path).touch()

    found = syncd(*command.split(), folder=tmp_path, SYNCD_API__TOKEN="t")

    told = found.stderr + found.stdout
    assert found.returncode == 1
    assert "damaged: is empty, which no database is: put it back from a copy" in told
    assert "if there never was one, remove the file" in told
    assert database(tmp_path).read_bytes() == b""


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
    syncd("enqueue", "run 1", "--name", "x", folder=tmp_path)

    found = syncd("show", "run 1", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr == DOWN + (
        "syncd: no snapshot of run 1: nothing was delivered to it yet; look with"
        " `syncd list --run 'run 1'`\n"
    )


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`syncd list | head -1` ends without a word on stderr."""
    enqueue(*(f"run_{number}" for number in range(2000)), folder=tmp_path)
    command = f"{sys.executable} -m syncd list --json --limit 2000 | head -1"

    found = subprocess.run(
        command, shell=True, env=environment(tmp_path), capture_output=True, text=True, check=True
    )

    assert len(found.stdout.splitlines()) == 1
    assert found.stderr == DOWN


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
