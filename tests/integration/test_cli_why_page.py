"""The page of `syncd why`, from real rows, as people see it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
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


async def test_while_the_database_is_not_in_its_place_it_is_to_be_put_back_first(
    tmp_path: Path,
) -> None:
    """To resume is refused until then."""
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        live = Live(Sending("paused", "by an operator"), folding=True)
        row = await store.read(lambda db: why.patch(db, 1, NOON, live))

    assert row is not None
    row["daemon"]["moved"] = True
    steps = page(read_row(read.encode(row)), NOON)[-2:]
    assert [step.split("   ")[0].strip() for step in steps] == [
        "put the database back",
        "syncd resume",
    ]


async def test_a_run_that_a_late_request_may_set_back_is_told_as_watched(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"))
        late = replace(deferred("r", 1, due_at=NOON), suspect_until=NOON + 60, decided_at=NOON)
        await store.settle([late])
        await store.settle([delivered("r", 1, troubled=True)])

        text = await shown(store, 1)

    assert (
        "  watched      a request that failed may yet be applied, late; the run is read\n"
        "               again in 60 s\n"
        "  run          nothing waits, cached 0.0 s ago, watched: read again in 60 s\n"
    ) in text


@pytest.mark.parametrize("word", ["unconfirmed", "fell_back"], ids=["now", "before"])
async def test_what_goes_again_is_not_said_to_have_been_undone(tmp_path: Path, word: str) -> None:
    """A name may be as it should be: the vendor's answers do not carry it."""
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"k":1}'))
        await store.settle([delivered("r", 1)])
        await store.send_again(Suspect("r", 1, 1, ()), {"k"})
        with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
            db.execute("UPDATE outbox SET reason = ?", (word,))

        text = await shown(store, 1)

    told = (
        "again it was delivered, but a late request may have undone it since: the run, read back,"
    )
    assert f" {told} does not show its values, or cannot be read " in " ".join(text.split())


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
