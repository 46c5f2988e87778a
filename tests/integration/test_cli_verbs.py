"""The operator's verbs as commands: by the daemon, and in its place while it is down."""

import json
import sqlite3
from pathlib import Path

from commands import DOWN, database, enqueue, lines
from processes import Running, environment, in_use, syncd, until_it_waits_for


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
