"""`syncd why` and `syncd plan` with the daemon up and down."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import DOWN
from processes import TOKEN, Daemon, Sandbox, start_daemon, start_sandbox, syncd

# The daemon up


@pytest.fixture(scope="module")
def daemon(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings: dict[str, dict[str, object]] = {
        "delivery": {"max_in_flight": 1},
        "retry": {"base_s": 30.0, "cap_s": 60.0},
    }
    folder = tmp_path_factory.mktemp("daemon")
    with start_daemon(folder, sandbox.url, **settings) as daemon:
        yield daemon


def enqueue(daemon: Daemon, *patches: tuple[str, dict[str, Any]]) -> list[int]:
    """Hand these in, as (run, metadata); their ids."""
    text = "".join(
        json.dumps({"workflow_run_id": run, "metadata": metadata}) + "\n"
        for run, metadata in patches
    )
    found = daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", "--json", input=text)
    assert found.returncode == 0, found.stderr
    (last,) = daemon.rows("SELECT max(id) FROM outbox")[0]
    return [*range(last - len(patches) + 1, last + 1)]


def told(daemon: Daemon, *asked: str) -> dict[str, Any]:
    found = daemon.syncd("why", "--json", *asked)
    assert (found.returncode, found.stderr) == (0, "")
    row: dict[str, Any] = json.loads(found.stdout)
    return row


def test_what_is_planned_is_what_is_sent(daemon: Daemon, sandbox: Sandbox) -> None:
    """Body for body: of each run in that order, and the runs in the order of their turn.

    What of a run comes later depends on when its answers do.
    """
    daemon.syncd("pause")
    enqueue(
        daemon,
        *[(f"plan_{n % 7}", {"a": n, "b": {"c": n} if n % 3 else n}) for n in range(60)],
    )
    found = daemon.syncd("plan", "--json", "--limit", "100").stdout
    before = len(sandbox.requests())
    daemon.syncd("resume")
    daemon.syncd("wait", "--all", "--timeout", "15")

    sent = [(visit["run"], json.loads(visit["body"])) for visit in sandbox.requests()[before:]]
    plan = [json.loads(line) for line in found.splitlines()]
    wanted = [(row["workflow_run_id"], row["body"]) for row in plan]
    assert len(wanted) > 20
    assert by_run(sent) == by_run(wanted)
    assert [*by_run(sent)] == [*by_run(wanted)]


def by_run(requests: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    """The bodies for each run, in the order in which the runs come up first."""
    found: dict[str, list[Any]] = {}
    for run, body in requests:
        found.setdefault(run, []).append(body)
    return found


def test_a_plan_shows_what_shares_a_request_and_what_goes_apart(daemon: Daemon) -> None:
    daemon.syncd("pause")
    first, *_, last = enqueue(
        daemon, ("fold_1", {"a": 1}), ("fold_1", {"b": 1}), ("fold_1", {"a": {"c": 1}})
    )

    text = daemon.syncd("plan", "--limit", "1")
    daemon.syncd("discard", "--run", "fold_1")
    empty = daemon.syncd("plan").stdout
    daemon.syncd("resume")

    assert text.stderr == ""
    assert text.stdout == (
        "paused: an operator has paused sending: syncd resume\n"
        "\n"
        "#  RUN     PATCHES\n"
        f"1  fold_1  {first} and {first + 1}\n"
        '     {"metadata":{"a":1,"b":1}}\n'
        f"     {last} goes apart: gives an object or an array to a key that an earlier"
        " patch\n     sets: a\n"
        "(1 request shown: --limit shows more)\n"
    )
    assert empty.endswith("no requests: nothing waits\n")


def test_a_paused_patch_knows_its_place(daemon: Daemon) -> None:
    daemon.syncd("pause")
    *_, last = enqueue(daemon, ("a", {"k": 1}), ("b", {"k": 1}), ("b", {"k": 2}), ("c", {"k": 1}))

    row, of_run = told(daemon, str(last)), told(daemon, "b")
    text, by_name = daemon.syncd("why", str(last)).stdout, daemon.syncd("why", "b").stdout
    for run in "abc":
        daemon.syncd("discard", "--run", run)
    daemon.syncd("resume")

    assert [cause["cause"] for cause in row["causes"]] == ["paused", "turn"]
    assert by_name.startswith(f"2 patches wait for b\npatch {last - 2} is the first, and pending, ")
    assert (row["place"]["ahead"], row["place"]["requests_ahead"]) == (3, 2)
    assert row["daemon"]["running"] is True
    assert (of_run["patch"]["id"], of_run["run"]["waiting"]) == (last - 2, 2)
    assert "2 requests of other runs go first; 3 of the 4 patches" in text
    assert "syncd resume" in text


def test_a_run_in_trouble_says_when_it_is_tried_again_and_why(daemon: Daemon) -> None:
    enqueue(daemon, ("why_well", {"k": 1}))  # something gets through: else no end is expected
    daemon.syncd("wait", "--run", "why_well", "--timeout", "10")
    (patch_id,) = enqueue(daemon, ("why~503", {"k": 1}))
    daemon.syncd("wait", "--run", "why~503", "--timeout", "1")

    row = told(daemon, str(patch_id))
    plan = daemon.syncd("plan").stdout
    daemon.syncd("discard", "--run", "why~503")

    assert [cause["cause"] for cause in row["causes"]] == ["deferred"]
    assert row["causes"][0]["reason"].startswith("http_503: ")
    assert row["causes"][0]["until"] == row["patch"]["next_attempt_at"]
    assert 0 < row["expected_s"] <= 60
    assert "no requests: what waits is deferred, or in flight\n" in plan
    assert "1 patch deferred after a failure" in plan


def test_what_nobody_knows_is_one_line(daemon: Daemon) -> None:
    found = [daemon.syncd("why", asked) for asked in ("999999", "run_of_nobody")]

    assert [each.returncode for each in found] == [1, 1]
    assert [each.stderr for each in found] == [
        "syncd: no patch 999999: look with `syncd list`\n",
        "syncd: no patch for run run_of_nobody: look with `syncd list`\n",
    ]


def test_a_number_is_a_patch_if_there_is_one_else_a_run(daemon: Daemon) -> None:
    (patch_id,) = enqueue(daemon, ("98765432109876543210", {"k": 1}))
    daemon.syncd("enqueue", "88888888", "--name", "x")
    daemon.syncd("wait", "--all", "--timeout", "10")

    assert told(daemon, str(patch_id))["patch"]["id"] == patch_id
    assert told(daemon, "88888888")["workflow_run_id"] == "88888888"
    assert told(daemon, "98765432109876543210")["patch"] is None
    assert "nothing waits for 88888888\n" in daemon.syncd("why", "88888888").stdout


def test_an_answer_that_does_not_come_is_waited_for(tmp_path: Path) -> None:
    """What is out is in flight; what has come for its run since waits behind it."""
    with (
        start_sandbox(tmp_path, "--faults", "hang=1", name="hanging") as sandbox,
        start_daemon(tmp_path / "d", sandbox.url, api={"timeout_s": 15.0}) as daemon,
    ):
        (out,) = enqueue(daemon, ("r", {"a": 1}))
        while not sandbox.stats()["requests"]:
            pass
        (behind,) = enqueue(daemon, ("r", {"a": 2}))
        flying, waiting = told(daemon, str(out)), told(daemon, str(behind))
        planned = json.loads(daemon.syncd("plan", "--json").stdout)

    assert flying["patch"]["state"] == "in_flight"
    assert [cause["cause"] for cause in flying["causes"]] == ["in_flight"]
    assert [cause["cause"] for cause in waiting["causes"]] == ["in_flight"]
    assert waiting["causes"][0]["patch_ids"] == [out]
    assert planned["patch_ids"] == [behind]


def test_refused_credentials_are_named_with_the_answer(tmp_path: Path) -> None:
    with (
        start_sandbox(tmp_path, "--token", "another") as sandbox,
        start_daemon(tmp_path / "d", sandbox.url, retry={"base_s": 60.0, "cap_s": 60.0}) as daemon,
    ):
        (patch_id,) = enqueue(daemon, ("r", {"a": 1}))
        daemon.syncd("wait", "--patch", str(patch_id), "--timeout", "1")
        found = daemon.syncd("why", str(patch_id))
        sandbox.change(token=TOKEN)
        retried = daemon.syncd("retry", str(patch_id))
        waited = daemon.syncd("wait", "--patch", str(patch_id), "--timeout", "15")

    assert retried.stdout == (
        "retried 1 patch\n"
        "the API does not accept the credentials: see the last error; it is asked at once,"
        " with r, and what waits goes when it answers well\n"
    )
    assert waited.returncode == 0
    assert found.returncode == 0
    assert "  blocked      the API does not accept the credentials" in found.stdout
    assert "http_401" in found.stdout
    assert "  syncd check --online   " in found.stdout


def test_a_version_that_is_gone_is_named_as_the_cause(tmp_path: Path) -> None:
    with (
        start_sandbox(tmp_path, "--faults", "410=1", "--api", "2026-02-09") as sandbox,
        start_daemon(
            tmp_path / "d",
            sandbox.url,
            api={"version": "2026-02-09"},
            retry={"base_s": 60.0, "cap_s": 60.0},
        ) as daemon,
    ):
        (patch_id,) = enqueue(daemon, ("r", {"a": 1}))
        daemon.syncd("wait", "--patch", str(patch_id), "--timeout", "1")
        about = json.loads(daemon.syncd("status", "--json").stdout)["daemon"]
        log = daemon.log()

    gone = "the API no longer has this version or endpoint: set api.version, then restart"
    assert (about["state"], about["reason"]) == ("blocked", gone)
    assert gone in log


# The daemon down


def test_both_answer_while_the_daemon_is_down_and_say_that_it_is(tmp_path: Path) -> None:
    syncd("enqueue", "r", "--set", "a=1.50", folder=tmp_path)
    syncd("enqueue", "r", "--metadata", '{"a":[1]}', folder=tmp_path)

    text = syncd("why", "2", folder=tmp_path)
    row = json.loads(syncd("why", "r", "--json", folder=tmp_path).stdout)
    plan = syncd("plan", folder=tmp_path)
    apart = syncd("plan", "--json", folder=tmp_path, SYNCD_DELIVERY__FOLD="false")

    assert (text.returncode, text.stderr) == (plan.returncode, plan.stderr) == (0, DOWN)
    assert "  stopped      nothing is sent while the daemon is down\n" in text.stdout
    assert "syncd run   nothing is sent" in text.stdout or "systemctl start" in text.stdout
    assert row["daemon"]["running"] is False
    assert (row["patch"]["id"], row["expected_s"]) == (1, None)
    assert '     {"metadata":{"a":1.50}}\n' in plan.stdout
    assert json.loads(apart.stdout.splitlines()[0])["apart"]["reason"] == (
        "folding is switched off"
    )


def test_a_pause_and_a_silence_are_told_while_the_daemon_is_down(tmp_path: Path) -> None:
    """Both outlive it, and hold at its next start."""
    with start_sandbox(tmp_path, "--faults", "429=1") as sandbox:
        daemon = Daemon(tmp_path / "d", sandbox.url)
        with daemon.start():
            enqueue(daemon, ("r", {"a": 1}))
            while not sandbox.stats()["requests"]:
                pass
            daemon.syncd("pause")
            assert daemon.running is not None
            daemon.running.signal(signal.SIGTERM)
            daemon.running.ended()

        text = daemon.syncd("why", "1").stdout

    assert "an operator has paused sending: it will start paused" in " ".join(text.split())


def test_what_only_sqlite_takes_for_json_is_shown_as_it_would_be_sent(tmp_path: Path) -> None:
    """A thousand levels, numbers beyond a double, half surrogates, lines within."""
    syncd("enqueue", "r0", "--name", "x", folder=tmp_path)
    deep = '{"a":' + "[" * 990 + "]" * 990 + "}"
    odd = [deep, '{"a":1e999}', '{"a":"\\ud800"}', '{"a":\n1}']
    with closing(sqlite3.connect(tmp_path / "state/syncd/syncd.db")) as db, db:
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, metadata) VALUES (?, ?)",
            [(f"r{n}", metadata) for n, metadata in enumerate(odd, start=1)],
        )

    plan = syncd("plan", folder=tmp_path)
    texts = [syncd("why", f"r{n}", folder=tmp_path) for n in range(1, 5)]

    assert plan.returncode == 0, plan.stderr
    for metadata in odd:
        assert f'     {{"metadata":{metadata}}}\n'.replace("\n1", " 1") in plan.stdout
    assert [text.returncode for text in texts] == [0] * 4


def test_without_a_database_there_is_nothing_to_tell(tmp_path: Path) -> None:
    for command in (("why", "1"), ("plan",)):
        found = syncd(*command, folder=tmp_path)

        assert found.returncode == 1
        assert found.stderr.count("\n") == 1
        assert "no database here yet" in found.stderr
