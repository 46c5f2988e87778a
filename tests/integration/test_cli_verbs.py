"""The operator's verbs as commands: by the daemon, and in its place while it is down."""

import json
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from commands import DOWN, begun, database, enqueue, lines
from processes import (
    PATIENCE_S,
    Daemon,
    Running,
    Sandbox,
    environment,
    in_use,
    start_daemon,
    syncd,
    until_it_waits_for,
)

from syncd.store.steps import STEP_PATCHES


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
        "newer_in_flight": 0,
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


def test_a_dead_patch_is_named_and_can_be_retried(daemon: Daemon, sandbox: Sandbox) -> None:
    """A refused patch is parked with its answer; what newer patches have set stays theirs."""
    daemon.syncd("enqueue", "dead_1", "--name", "old", "--set", "sandbox_refuse=1")
    refused = daemon.syncd("wait", "--run", "dead_1", "--timeout", "10")
    listed = lines(daemon.syncd("list", "--json", "--run", "dead_1").stdout)
    newer = json.loads(daemon.syncd("enqueue", "dead_1", "--name", "new", "--json").stdout)
    daemon.syncd("wait", "--patch", str(newer["first_id"]), "--timeout", "10")

    table = daemon.syncd("list", "--state", "dead").stdout.splitlines()
    retried = daemon.syncd("retry", str(listed[0]["id"]))
    daemon.syncd("wait", "--run", "dead_1", "--timeout", "10")
    discarded = daemon.syncd("discard", "--run", "dead_1")

    assert refused.returncode == 1
    assert "is dead: http_422" in refused.stdout
    assert retried.stdout == (
        f"retried 1 patch\npatch {listed[0]['id']} goes without name: set by newer patches\n"
        f"it was refused with http_422: {listed[0]['last_error']['message']}\n"  # type: ignore[index]
    )
    assert table[0].split()[-2:] == ["ERROR", "MESSAGE"]
    assert table[1].endswith(listed[0]["last_error"]["message"])  # type: ignore[index]
    assert discarded.stdout == "discarded 1 patch\n"
    assert sandbox.runs()["dead_1"]["name"] == "new"


def test_a_verb_asks_the_daemon_whatever_the_file(daemon: Daemon) -> None:
    """A member of the socket's group need not be let into the folder of the database."""
    elsewhere = daemon.environment | {"SYNCD_STORE__PATH": "/dev/null/syncd.db"}

    found = syncd("discard", "999999", folder=daemon.folder, **elsewhere)

    assert found.returncode == 1
    assert found.stdout == "discarded 0 patches\n"
    assert found.stderr == "syncd: no patch 999999: look with `syncd list`\n"


def test_pause_stops_sending_and_resume_goes_on(daemon: Daemon, sandbox: Sandbox) -> None:
    """Intake goes on meanwhile; held patches stay where they are."""
    daemon.syncd("pause")
    daemon.syncd("enqueue", "pause_1", "--name", "x")
    paused = daemon.status()
    held = daemon.syncd("hold", "--run", "pause_1")
    released = daemon.syncd("release", "--run", "pause_1")
    before = "pause_1" in sandbox.runs()
    daemon.syncd("resume")
    waited = daemon.syncd("wait", "--run", "pause_1", "--timeout", "10")

    assert paused["daemon"]["state"] == "paused"
    assert paused["outbox"]["pending"] == 1
    assert (held.stdout, released.stdout) == ("held 1 patch\n", "released 1 patch\n")
    assert not before
    assert waited.returncode == 0


def test_a_retry_tells_that_nothing_goes_yet_where_something_would(daemon: Daemon) -> None:
    """Not of a patch that was discarded, nor of nothing. Of a run there is none at all."""
    daemon.syncd("pause")
    gone = json.loads(daemon.syncd("enqueue", "yet_1", "--name", "x", "--json").stdout)["first_id"]
    daemon.syncd("discard", str(gone))
    meant = [
        ("--reason", "BOGUS"),
        ("--run", "nobody"),
        ("--run", "yet_1"),
        (str(gone),),
        ("--all",),
    ]
    nothing = [daemon.syncd("retry", *those) for those in meant]
    daemon.syncd("enqueue", "yet_1", "--name", "y")
    something = [daemon.syncd("retry", *those) for those in (("--run", "yet_1"), ("--all",))]
    daemon.syncd("resume")
    waited = daemon.syncd("wait", "--run", "yet_1", "--timeout", "10")

    for each in nothing:
        assert each.stdout == "retried 0 patches\n"
    assert [each.returncode for each in nothing] == [0, 1, 0, 1, 0]
    assert nothing[1].stderr == "syncd: no patch for run nobody: look with `syncd list`\n"
    yet = "nothing goes yet: an operator has paused sending: syncd resume\n"
    for each in something:
        assert (each.returncode, each.stdout) == (0, "retried 0 patches\n" + yet)
    assert waited.returncode == 0


Ended = tuple[int, str, str]


def held_until(
    daemon: Daemon, end: "Callable[[subprocess.Popen[str]], object]", *options: str
) -> Ended:
    """`hold --all` that is ended when it has done a step; so long it is kept from going on."""
    with begun(daemon, "hold", "--all", *options) as command:
        with closing(sqlite3.connect(daemon.database, isolation_level=None)) as db:
            while not db.execute("SELECT n FROM counters WHERE state = 'held'").fetchone()[0]:
                assert command.poll() is None
            db.execute("BEGIN IMMEDIATE")
            end(command)
        out, err = command.communicate(timeout=PATIENCE_S)
    return command.returncode, out, err


def test_a_verb_that_is_told_to_stop_says_how_far_it_is_and_goes_no_further(
    tmp_path: Path,
) -> None:
    """By ^C, or with the daemon; the same in the daemon's place. The rest is as it was."""
    held = []
    with start_daemon(tmp_path, "http://127.0.0.1:1") as daemon:
        daemon.syncd("pause")
        daemon.insert(*((f"r{n}", "x", None) for n in range(8 * STEP_PATCHES)))
        interrupted = held_until(daemon, lambda it: it.send_signal(signal.SIGINT), "--json")
        held += [daemon.status()["outbox"]["held"]]
        daemon.syncd("release", "--all")
        with_it = held_until(daemon, lambda _: daemon.running.signal(signal.SIGTERM))  # type: ignore[union-attr]
        daemon.running.ended()  # type: ignore[union-attr]
        held += [daemon.status()["outbox"]["held"]]
    daemon.syncd("release", "--all")
    by_file = held_until(daemon, lambda it: it.send_signal(signal.SIGTERM))
    held += [daemon.status()["outbox"]["held"]]

    so_far = [f"{n:,} patches held so far" for n in held]
    assert all(0 < n < 8 * STEP_PATCHES for n in held)
    told = json.loads(interrupted[1])
    assert (told["touched"], told["stopped"]) == (held[0], "interrupted")
    stopped = f"syncd: stopped: {so_far[0]}; the rest is as it was\n"
    assert (interrupted[0], interrupted[2]) == (130, stopped)
    cut_off = f"syncd: the daemon stops: {so_far[1]}; the rest is as it was: try again\n"
    assert with_it == (1, "", cut_off)
    assert by_file == (143, "", f"syncd: stopped: {so_far[2]}; the rest is as it was\n")
    assert "Traceback" not in daemon.log()


def fill_disk_of(pid: int) -> None:
    """What the process writes to a file ends early, and no step of a verb is so small."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))


def test_a_verb_whose_disk_is_full_in_the_middle_says_how_far_it_is(tmp_path: Path) -> None:
    """By the daemon, and the same in its place. The rest is as it was."""
    with start_daemon(tmp_path, "http://127.0.0.1:1") as daemon:
        daemon.syncd("pause")
        daemon.insert(*((f"r{n}", "x", None) for n in range(5 * STEP_PATCHES)))
        by_daemon = held_until(daemon, lambda _: fill_disk_of(daemon.pid), "--json")
        held = [daemon.status()["outbox"]["held"]]
        daemon.kill()
    daemon.syncd("release", "--all")
    by_file = held_until(daemon, lambda it: fill_disk_of(it.pid))
    held += [daemon.status()["outbox"]["held"]]

    assert all(0 < n < 5 * STEP_PATCHES and n % STEP_PATCHES == 0 for n in held)
    why = f"{daemon.database}: disk I/O error: free space or mend the file system"
    so_far = [
        f"syncd: {why}: {n:,} patches held so far; the rest is as it was: try again\n" for n in held
    ]
    told = json.loads(by_daemon[1])
    assert (told["touched"], told["stopped"]) == (held[0], why)
    assert (by_daemon[0], by_daemon[2]) == (1, so_far[0])
    assert by_file == (1, "", so_far[1])


def test_a_daemon_that_starts_while_a_verb_is_at_work_waits_for_it(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """And the verb for the daemon, whoever comes first: here both find somebody else's lock. A
    start says so before its patience ends."""
    daemon = Daemon(tmp_path, sandbox.url)
    daemon.syncd("enqueue", "edge_2", "--name", "n")
    env = environment(tmp_path, **daemon.environment)
    with in_use(daemon.database):
        verb = Running("pause", ["pause"], tmp_path, env)
        until_it_waits_for(daemon.database, verb)
        daemon.running = Running("daemon", ["run"], tmp_path, env)
        until_it_waits_for(daemon.database, daemon.running)
        deadline = time.monotonic() + PATIENCE_S
        while "daemon.waits" not in daemon.log():
            assert daemon.running.exit_code is None, daemon.log()
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.02)

    with daemon:
        assert f"`fuser -v {daemon.database}`" in daemon.log()
        assert (verb.ended(), verb.log()) == (0, "paused: nothing is sent\n")
        assert daemon.syncd("resume").returncode == 0
        assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0
        assert daemon.status()["daemon"]["running"]
