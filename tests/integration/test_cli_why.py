"""`syncd why` and `syncd plan` as people see them, with the daemon up and down."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from commands import DOWN
from processes import TOKEN, Daemon, Sandbox, start_daemon, start_sandbox, syncd
from stores import NOON, Wall, dead, deferred, delivered, fill, opened

from syncd.cli.door import read_row
from syncd.cli.why import page
from syncd.core.breaker import Probe
from syncd.core.outcome import Blame, Trouble
from syncd.core.sending import Live, Out, Sending
from syncd.core.settlement import Noted
from syncd.core.suspect import Suspect
from syncd.store import Selection, Store, ahead, read, why

TRIED, DUE = "next try in 9.0 s", "its own wait ends in 9.0 s"
DOWN_NOW = Sending("waiting", "it fails", NOON + 60, by_api=True, probe=Probe.AWAITED)
STATES = ("stopped", "draining", "paused", "blocked", "waiting")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# The page, from real rows


async def shown(store: Store, patch_id: int, *, now: float = NOON, **live: Any) -> str:
    """What `syncd why` says of a patch while `sending` stands so and `out` is out."""
    facts = Live(live.pop("sending", Sending("running", requests_per_s=8.0)), folding=True, **live)
    row = await store.read(lambda db: why.patch(db, patch_id, now, facts))
    assert row is not None
    return click.unstyle("\n".join(page(read_row(read.encode(row)), now)))


async def test_the_chain_is_read_from_the_patch_to_the_daemon(tmp_path: Path) -> None:
    """The whole of it, as it stands on a screen of 80 columns."""
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("s", "{}"), ("r", '{"a":1}'), ("r", '{"a":{}}'))
        await store.settle([deferred("r", 2, due_at=NOON + 30, failures=2)])
        sending = Sending(
            "waiting", "the API asked to wait until noon", NOON + 12, 8.0, by_api=True
        )

        text = await shown(store, 3, now=NOON + 5, sending=sending)

    assert (
        text
        == """\
patch 3 for r is deferred, here for 5.0 s

  waiting      the API asked to wait until noon, in 7.0 s
               5.0 s ago: http_503: what the vendor said
  older        2 of the same run goes first, in 1 request
  apart        it does not go along: gives an object or an array to a key that
               an earlier patch sets: a
  deferred     2 failures of its run in a row; its own wait ends in 25 s
               5.0 s ago: http_503: what the vendor said
  turn         1 request of other runs goes first; 1 of the 3 patches that wait
               stand before its run
  expected     in about 25 s
  run          2 patches waiting, not cached yet"""
    )


@pytest.mark.parametrize(
    ("sending", "deferred_s", "said", "advised"),
    [
        (Sending("running", requests_per_s=8.0), 9, TRIED, "syncd retry --run r try now"),
        (Sending("running", requests_per_s=8.0), 0, None, None),
        (DOWN_NOW, 9, DUE, "syncd retry 1 ask the API now"),
        (DOWN_NOW, 0, None, "syncd retry 1 ask the API now"),
        (replace(DOWN_NOW, state="blocked"), 0, None, "syncd retry 1 ask the API now"),
        (replace(DOWN_NOW, probe=Probe.OUT), 9, DUE, None),
        (Sending("paused", "by an operator"), 9, DUE, None),
        (Sending("stopped", "it is down"), 9, DUE, None),
    ],
)
async def test_a_retry_is_advised_where_it_would_be_a_try(
    tmp_path: Path, sending: Sending, deferred_s: int, said: str | None, advised: str | None
) -> None:
    """And no try is foretold while nothing goes."""
    async with opened(tmp_path / "s.db", Wall()) as store:
        await fill(store, ("r", "{}"))
        await store.settle([deferred("r", 1, due_at=NOON + deferred_s, failures=2)])

        text = await shown(store, 1, sending=sending)

    advice = [" ".join(line.split()) for line in text.splitlines() if "syncd retry" in line]
    assert advice == ([advised] if advised else [])
    assert [it for it in (TRIED, DUE) if it in text] == ([said] if said else [])


async def test_the_next_to_go_is_told_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))

        text = await shown(store, 1)

    assert "\n  turn         it is the next to go\n  expected     at once\n" in text
    assert "Next:" not in text


async def test_a_try_whose_time_has_come_still_tells_of_the_last_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        await store.settle([deferred("r", 1, due_at=NOON)])

        text = await shown(store, 1)

    assert text.startswith("patch 1 for r is pending")
    assert "  last error   0.0 s ago: http_503\n               what the vendor said\n" in text


async def test_what_is_in_flight_is_told_with_its_company(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[("r", "{}")] * 3)
        out = {"r": Out((1, 2), 0.5)}

        flying, waiting = await shown(store, 1, out=out), await shown(store, 3, out=out)

    assert flying.startswith("patch 1 for r is in flight, here for 0.0 s\n")
    assert "  in flight    out for 0.5 s, together with 2; it waits for the answer\n" in flying
    assert "for 0.5 s a request of its run with 1 and 2 is out" in waiting
    assert "expected     at once" in waiting


async def test_a_parked_patch_shows_the_answer_and_the_ways_out(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        await store.settle([dead("r", 1)])
        await store.operate("retry", Selection(ids=(1,)), in_flight=())
        await store.settle([dead("r", 1)])

        text = await shown(store, 1, now=NOON + 300)

    assert (
        text
        == """\
patch 1 for r is dead

  dead         parked 5 min ago, after 2 attempts
  last error   5 min ago: INVALID_REQUEST
               what the vendor said
               request id req_1
  run          nothing waits, 1 dead, not cached yet

Next:
  syncd retry 1     it goes again
  syncd discard 1   it will never be delivered"""
    )


async def test_held_and_discarded_and_retried_patches_are_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"a":1,"b":1}'), ("r", '{"a":2}'), ("s", "{}"), ("t", "{}"))
        await store.settle([dead("r", 1)])
        await store.settle([delivered("r", 2)])
        await store.operate("retry", Selection(ids=(1,)), in_flight=())
        await store.operate("hold", Selection(ids=(3,)), in_flight=())
        await store.operate("discard", Selection(ids=(4,)), in_flight=())

        retried, held, discarded = [await shown(store, patch_id) for patch_id in (1, 3, 4)]

    assert "  without      a: set by newer patches\n" in retried
    assert "  held         by an operator\n" in held
    assert "  syncd release 3   it goes\n" in held
    assert "  discarded    by an operator, 0.0 s ago\n" in discarded


async def test_a_delivered_patch_is_told_with_its_company(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[("r", "{}")] * 2, ("s", "{}"))
        await store.settle([delivered("r", 1, 2), delivered("s", 3)])

        together, alone = await shown(store, 1), await shown(store, 3)

    assert "  delivered    0.0 s ago, by one request with 2\n" in together
    assert "  delivered    0.0 s ago, by a request of its own\n" in alone


async def test_a_run_that_a_late_request_may_set_back_is_told_as_watched(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        late = replace(deferred("r", 1, due_at=NOON), suspect_until=NOON + 60, decided_at=NOON)
        await store.settle([late])
        await store.settle([delivered("r", 1, troubled=True)])

        text = await shown(store, 1)

    assert (
        "  watched      a request without an answer may yet set the run back; it is read\n"
        "               again in 60 s\n"
        "  run          nothing waits, cached 0.0 s ago, watched: read again in 60 s\n"
    ) in text


@pytest.mark.parametrize("word", ["unconfirmed", "fell_back"], ids=["now", "before"])
async def test_what_goes_again_is_not_said_to_have_been_undone(tmp_path: Path, word: str) -> None:
    """A name may be as it should be: the vendor's answers do not carry it."""
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        await store.settle([delivered("r", 1)])
        await store.send_again(Suspect("r", 1, 1, ()), 1)
        with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
            db.execute("UPDATE outbox SET reason = ?", (word,))

        text = await shown(store, 1)

    told = (
        "again it was delivered, but a late request may have undone it since: the run, read back,"
    )
    assert f" {told} does not show its values " in " ".join(text.split())


@pytest.mark.parametrize("state", STATES)
async def test_whatever_stops_sending_is_named_and_fits_the_screen(
    tmp_path: Path, state: str
) -> None:
    """First of all; where an answer of the API is the reason, with that answer."""
    async with opened(tmp_path / "s.db", Wall()) as store:
        await fill(store, ("workflow_run_" + "x" * 20, "{}"))
        answer = Trouble(Blame.CREDENTIALS, "http_401", "The API key is not valid. " * 5)
        await store.settle([Noted(answer)])

        by_api = state in ("blocked", "waiting")
        sending = Sending(state, "for a reason that is given", NOON + 9, by_api=by_api)
        text = await shown(store, 1, sending=sending)

    assert f"\n\n  {state:<12} for a reason that is given" in text
    assert ("9.0 s" in text) == (by_api or state == "stopped")  # when a pause ends nobody knows
    unsent = "unknown: nothing gets through" if state == "waiting" else "not while nothing is sent"
    assert f"  expected     {unsent}\n" in text
    assert ("http_401" in text) == by_api
    assert max(map(len, text.splitlines())) <= 80


async def test_a_look_that_came_to_an_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "COUNTED", 1000)
    monkeypatch.setattr(ahead, "SAMPLED", 500)
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[(f"r{n // 2}", "{}") for n in range(1200)], ("last", "{}"))

        text = await shown(store, 1201)

    assert (
        "  turn         more than 500 requests of other runs go first; more than 1,000 of\n"
        "               the 1,201 patches that wait stand before its run\n"
        "  expected     in more than 62 s\n"
    ) in text


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
        "retried 0 patches\n"
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
