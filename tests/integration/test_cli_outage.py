"""What commands say while the API fails or refuses everything."""

import json
from pathlib import Path

from commands import begun, first_word, lines
from processes import Daemon, Sandbox, start_daemon, start_sandbox


def test_deferred_patches_are_listed_with_their_cause(daemon: Daemon) -> None:
    """A run in trouble says when it is tried again and why."""
    daemon.syncd("enqueue", "late~503", "--name", "x")
    found = daemon.syncd("wait", "--run", "late~503", "--timeout", "0.5")
    (row,) = lines(daemon.syncd("list", "--json", "--run", "late~503").stdout)
    table = daemon.syncd("list", "--run", "late~503").stdout
    daemon.syncd("discard", "--run", "late~503")

    assert found.returncode == 124
    assert row["last_error"]["code"] == "http_503"  # type: ignore[index]
    assert "http_503" in table


def test_while_nothing_gets_through_neither_status_nor_why_names_an_end(tmp_path: Path) -> None:
    """However fast it could go; and they do again when something does. Who waits is told, once."""
    with (
        start_sandbox(tmp_path, "--faults", "500=1") as sandbox,
        start_daemon(tmp_path, sandbox.url, retry={"base_s": 0.05, "cap_s": 0.2}) as daemon,
    ):
        daemon.syncd("pause")
        daemon.insert(*((f"r{number}", "x", None) for number in range(20)))
        with begun(daemon, "wait", "--all", "--timeout", "30") as waiting:
            told = [first_word(waiting)]
            daemon.syncd("resume")
            told.append(first_word(waiting))
            down = daemon.status()
            text = daemon.syncd("status").stdout
            why = daemon.syncd("why", "20").stdout
            sandbox.change(faults="")
            waited = waiting.communicate(timeout=20)
        done = daemon.status()

    assert told[0] == "syncd: paused: an operator has paused sending: syncd resume\n"
    assert told[1].startswith("syncd: waiting: the API is failing; next probe at ")
    assert (waiting.returncode, *waited) == (0, "delivered\n", "")
    assert down["outbox"]["pending"] + down["outbox"]["in_flight"] == 20
    assert down["eta_s"] is None
    assert "done         unknown: nothing gets through\n" in text
    assert "expected     unknown: nothing gets through\n" in why
    assert done["eta_s"] == 0.0


def test_one_run_that_fails_alone_has_no_end_in_status_nor_in_why(tmp_path: Path) -> None:
    """The API is not taken to be down: its next try is known, and no more. When it is, `retry` has
    it asked at once."""
    with (
        start_sandbox(tmp_path, "--faults", "500=1") as sandbox,
        start_daemon(tmp_path, sandbox.url, retry={"base_s": 60.0, "cap_s": 60.0}) as daemon,
    ):
        daemon.insert(("r", "x", None))
        while not (status := daemon.status())["outbox"]["deferred"]:
            pass
        row = json.loads(daemon.syncd("why", "1", "--json").stdout)
        daemon.insert(*((f"r{number}", "x", None) for number in range(20)))
        while daemon.status()["daemon"]["state"] != "waiting":
            pass
        retried = daemon.syncd("retry", "21")
        while daemon.status()["gate"]["closed_until"] is None:  # until that has failed, too
            pass
        of_two = daemon.syncd("retry", "19", "20")
        while daemon.status()["gate"]["closed_until"] is None:
            pass
        sandbox.change(faults="")
        all_of_it = daemon.syncd("retry", "--all")
        waited = daemon.syncd("wait", "--all", "--timeout", "15")

    assert (retried.returncode, retried.stdout, retried.stderr) == (
        0,
        "retried 1 patch\n"
        "the API is failing; it is asked at once, with r19, and what waits goes when it answers"
        " well\n",
        "",
    )
    assert of_two.stdout.startswith(
        "retried 1 patch\nthe API is failing; it is asked at once, with"
    )
    assert (of_two.returncode, of_two.stderr) == (
        1,
        "syncd: patch 20 is pending: nothing to retry: see `syncd why 20`\n",
    )
    assert "the API is failing; it is asked at once, and what waits" in all_of_it.stdout
    assert waited.returncode == 0, "a minute before the next try and the next probe"
    assert (status["daemon"]["state"], status["eta_s"]) == ("running", None)
    assert (row["daemon"]["state"], row["expected_s"]) == ("running", None)
    assert [cause["cause"] for cause in row["causes"]] == ["deferred"]


def test_status_says_so_where_everything_is_refused_alike(tmp_path: Path) -> None:
    """As where the API wants a version and is told none: each patch alone looks like a bad one."""
    with (
        start_sandbox(tmp_path, "--faults", "400=1") as sandbox,
        start_daemon(tmp_path / "d", sandbox.url) as daemon,
    ):
        patches = "".join(f'{{"workflow_run_id":"r{n}","name":"x"}}\n' for n in range(20))
        daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=patches)
        daemon.syncd("wait", "--all", "--timeout", "15")
        status = json.loads(daemon.syncd("status", "--json").stdout)

    (trouble,) = status["troubles"]
    assert status["outbox"]["dead"] == 20
    assert trouble.startswith("at least 20 runs in a row were refused alike, HTTP 400 (http_400)")
    assert trouble.endswith("syncd retry --reason http_400")


def test_an_api_that_knows_no_run_at_all_is_a_trouble_that_names_the_setting(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Each patch alone is parked as refused, and each alone might be somebody's mistake."""
    with start_daemon(tmp_path, f"{sandbox.url}/elsewhere") as daemon:
        daemon.insert(*[(f"lost_{n}", "x", None) for n in range(9)])
        daemon.syncd("wait", "--all", "--timeout", "10")
        few = daemon.status()
        daemon.insert(("lost_9", "x", None))
        daemon.syncd("wait", "--all", "--timeout", "10")
        many = daemon.status()
        shown = " ".join(daemon.syncd("status").stdout.split())

    assert (few["outbox"]["dead"], few["troubles"]) == (9, [])
    assert (many["outbox"]["dead"], len(many["troubles"])) == (10, 1)
    assert "check api.base_url and api.workspace_id, then syncd retry --reason " in shown
