"""The relay: what waits in the outbox ends at the vendor, in order, whatever happens on the way."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import feed
import pytest
from delivering import Delivering, delivering, patches
from sandboxed import Sandboxed, sandboxed
from stores import insert, rows, states

from syncd.core.patch import Patch
from syncd.core.schedule import Lane
from syncd.core.settlement import Settlement
from syncd.store import Selection, Store, Verb, read
from syncd.store.schema import open_writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "syncd.db"


def some(count: int, runs: int, seed: int = 1, tag: str = "t") -> list[Patch]:
    return patches(feed.as_rows(feed.patches(count, runs, seed, tag)))


def patch(run: str, number: int, **more: Any) -> Patch:
    return Patch(run, None, json.dumps({"n": number} | more))


async def operate(it: Delivering, verb: Verb, selection: Selection) -> int:
    """What `control` does for an operator."""
    async with it.relay.standing_still() as in_flight:
        return (await it.store.operate(verb, selection, in_flight=in_flight)).touched


async def of(sandbox: Sandboxed, run: str) -> list[dict[str, Any]]:
    """The bodies of the requests for a run, in their order."""
    return [json.loads(request["body"]) for request in await sandbox.requests(run)]


# The promise


@pytest.mark.parametrize("api", ["v1", "2026-02-09"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "one by one"])
async def test_every_run_ends_as_its_patches_one_by_one_would_leave_it(
    path: Path, api: str, fold: bool
) -> None:
    async with (
        sandboxed(api=api, latency_s=0.002) as sandbox,
        delivering(path, sandbox, fold=fold) as it,
    ):
        for chunk in range(3):
            await it.accept(*some(100, 60, seed=chunk, tag=f"c{chunk}"))
        counters = await it.drained()

        stats = await sandbox.stats()
        assert (counters["delivered"], counters["dead"]) == (300, 0)
        assert await it.wrong_runs() == {}
        assert stats["max_in_flight_per_run"] == 1
        assert stats["by_status"] == {"200": stats["requests"]}
        assert stats["requests"] < 300 if fold else stats["requests"] == 300


async def test_a_runs_requests_never_overlap_however_slow_the_vendor(path: Path) -> None:
    async with sandboxed(latency_s=0.01) as sandbox, delivering(path, sandbox, fold=False) as it:
        await it.accept(*[patch(f"run_{n % 3}", n) for n in range(60)])
        await it.drained()

        stats = await sandbox.stats()
        assert stats["max_in_flight_per_run"] == 1
        assert 1 < stats["max_in_flight"] <= 3
        assert [body["metadata"]["n"] for body in await of(sandbox, "run_1")] == [
            *range(1, 60, 3),
        ]


async def test_each_snapshot_is_what_the_vendor_holds(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await it.accept(*some(100, 20))
        await it.drained()

        held = await sandbox.state()
        for run, state in held.items():
            row = await it.store.read(lambda db, run=run: read.snapshot(db, run))
            shown = json.loads(read.encode(row))["workflow_run"]
            assert (shown["id"], shown["metadata"]) == (run, state["metadata"])
            assert shown["name"] == state["name"]


async def test_patches_of_other_processes_are_delivered_without_being_told_of(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await asyncio.to_thread(insert, path, ("r", "by SQL", '{"big":12345678901234567890123}'))
        await it.until(lambda counters: counters["delivered"] == 1)

        assert '"big":12345678901234567890123' in (await sandbox.requests("r"))[0]["body"]


async def test_waiting_patches_of_one_run_go_in_one_request(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        it.gate.pause()
        await it.accept(*[patch("r", n) for n in range(150)])
        it.gate.resume()
        await it.drained()

        assert [body["metadata"]["n"] for body in await of(sandbox, "r")] == [99, 149]


# One run's trouble is its own


async def test_a_run_that_keeps_failing_delays_nobody_and_its_patches_wait_in_order(
    path: Path,
) -> None:
    async with (
        sandboxed(latency_s=0.001) as sandbox,
        delivering(path, sandbox, base_s=0.3, cap_s=0.3) as it,
    ):
        await it.accept(patch("bad~500", 1), *[patch(f"good_{n}", n) for n in range(50)])
        await it.until(lambda counters: counters["delivered"] == 50)
        await it.accept(patch("bad~500", 2), patch("good_1", 51))
        await it.until(lambda counters: counters["delivered"] == 51)

        assert it.states("bad~500") == ["pending", "pending"]
        assert it.counters()["dead"] == 0
        assert all(body == {"metadata": {"n": 1}} for body in (await of(sandbox, "bad~500"))[:1])
        assert it.gate.figures().breaker == "closed"


async def test_what_waits_for_a_failing_run_arrives_in_order_when_it_recovers(path: Path) -> None:
    async with (
        sandboxed(faults="500=1") as sandbox,
        delivering(path, sandbox, fold=False) as it,
    ):
        await it.accept(*[patch("r", n) for n in range(5)])
        await it.until_requests(3)
        await sandbox.change(faults="")
        await it.drained()

        applied = [json.loads(r["body"]) for r in await sandbox.requests("r") if r["applied"]]
        assert [body["metadata"]["n"] for body in applied] == [0, 1, 2, 3, 4]


async def test_of_a_refused_fold_only_the_guilty_patch_is_parked(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        it.gate.pause()
        await it.accept(
            patch("r", 1), patch("r", 2), patch("r", 3, sandbox_refuse=1), patch("r", 4, last=True)
        )
        it.gate.resume()
        await it.drained()

        assert it.states("r") == ["delivered", "delivered", "dead", "delivered"]
        bodies = [body["metadata"]["n"] for body in await of(sandbox, "r")]
        assert bodies == [4, 1, 2, 3, 4]
        assert (await sandbox.state())["r"]["metadata"] == {"n": 4, "last": True}
        (error,) = rows(path, "SELECT last_error FROM outbox WHERE state = 'dead'")[0]
        assert json.loads(error)["status"] == 422


async def test_what_comes_after_a_fold_that_was_taken_apart_is_folded_again(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        it.gate.pause()
        guilty = patch("r", 1, sandbox_refuse=1)
        await it.accept(guilty, *[patch("r", n) for n in range(2, 102)])
        it.gate.resume()
        await it.until(lambda counters: counters["dead"] == 1)
        await it.accept(*[patch("r", n) for n in range(102, 110)])
        await it.drained()

        assert it.states("r") == ["dead", *["delivered"] * 108]
        assert len(await of(sandbox, "r")) < 109


async def test_an_unknown_run_parks_only_what_waits_for_it(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox, fold=False) as it:
        await it.accept(*[patch("gone~404", n) for n in range(5)], *some(40, 10))
        await it.drained()

        assert it.states("gone~404") == ["dead"] * 5
        assert len(await of(sandbox, "gone~404")) == 1
        assert it.counters()["delivered"] == 40
        assert await it.wrong_runs() == {"gone~404": ({"name": None, "metadata": {"n": 4}}, None)}


async def test_what_arrives_for_an_unknown_run_later_is_tried_again(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await it.accept(patch("gone~404", 1))
        await it.drained()
        await it.accept(patch("gone~404", 2))
        await it.until(lambda counters: counters["dead"] == 2)

        assert len(await of(sandbox, "gone~404")) == 2


# Nobody's fault but ours, or the server's


async def test_a_wrong_token_costs_no_patch_anything_and_heals_by_itself(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox, cap_s=0.3) as it:
        it.token[0] = "wrong"
        await it.accept(*some(100, 30))
        await it.until_requests(2)
        blocked = it.gate.blocked
        assert it.counters()["dead"] == 0
        await sandbox.change(token="wrong")
        counters = await it.drained()

        assert blocked
        assert (counters["delivered"], counters["dead"]) == (100, 0)
        assert rows(path, "SELECT max(attempts) FROM outbox") == [(0,)]
        assert await it.wrong_runs() == {}


async def test_a_right_token_is_noticed_at_once_when_told(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox, base_s=60.0, cap_s=60.0) as it:
        it.token[0] = "wrong"
        await it.accept(patch("r", 1))
        await it.until_requests(1)
        it.token[0] = sandbox.settings.token
        it.gate.hurry()

        assert (await it.drained())["delivered"] == 1


FAULTS = [
    "drop=0.2,drop_after=0.2",
    "500=0.2,503=0.1,408=0.1,409=0.1,425=0.1",
    "garbage=0.2,false=0.2,wrong_id=0.2",
    "hang=0.1",
    "429=0.05",
]


@pytest.mark.parametrize("faults", FAULTS)
async def test_whatever_goes_wrong_everything_arrives_in_the_end(path: Path, faults: str) -> None:
    async with (
        sandboxed(faults=faults, seed=7) as sandbox,
        delivering(path, sandbox, timeout_s=0.2) as it,
    ):
        await it.accept(*some(120, 30))
        await it.until_requests(25)
        await sandbox.change(faults="")
        counters = await it.drained()

        assert (counters["delivered"], counters["dead"]) == (120, 0)
        assert await it.wrong_runs() == {}
        assert (await sandbox.stats())["max_in_flight_per_run"] == 1


async def test_a_server_that_is_down_is_left_alone_and_noticed_when_it_is_back(path: Path) -> None:
    async with (
        sandboxed(faults="503=1") as sandbox,
        delivering(path, sandbox, base_s=0.05, cap_s=0.2) as it,
    ):
        await it.accept(*[patch(f"r{n}", n) for n in range(200)])
        await it.when(lambda: it.gate.figures().breaker != "closed")
        asked = (await sandbox.stats())["requests"]
        await sandbox.change(faults="")
        counters = await it.drained()

        assert asked < 50
        assert (counters["delivered"], counters["dead"]) == (200, 0)


async def test_too_old_a_patch_is_given_up_where_the_operator_wants_that(path: Path) -> None:
    async with (
        sandboxed(faults="500=1") as sandbox,
        delivering(path, sandbox, max_age_s=0.05) as it,
    ):
        await it.accept(patch("r", 1))
        await it.drained()

        assert rows(path, "SELECT state, reason, attempts FROM outbox") == [("dead", "expired", 0)]


# Limits


@pytest.mark.alone
@pytest.mark.parametrize("fold", [False, True], ids=["one by one", "folded"])
async def test_the_limit_is_used_and_never_passed(path: Path, fold: bool) -> None:
    async with (
        sandboxed(rate=40) as sandbox,
        delivering(path, sandbox, rate=40.0, in_flight=8, fold=fold) as it,
    ):
        await it.accept(*some(100 if not fold else 600, 100))
        await it.drained()

        stats = await sandbox.stats()
        sent = [request["at_s"] for request in await sandbox.requests()]
        assert stats["by_status"] == {"200": len(sent)}
        assert stats["max_in_one_second"] <= 40
        # The usual gap: a machine that is busy with other things may stop for a moment.
        assert 1 / median(after - before for before, after in pairwise(sent)) >= 0.97 * 40
        assert await it.wrong_runs() == {}


async def test_no_more_is_out_at_once_than_the_operator_allows(path: Path) -> None:
    async with (
        sandboxed(latency_s=0.02) as sandbox,
        delivering(path, sandbox, in_flight=3) as it,
    ):
        await it.accept(*[patch(f"r{n}", n) for n in range(60)])
        await it.drained()

        assert (await sandbox.stats())["max_in_flight"] <= 3


async def test_an_urgent_patch_overtakes_a_large_backlog(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox, rate=100.0) as it:
        await it.accept(*[patch(f"r{n:04d}", n) for n in range(1_500)])
        await it.until_requests(10)
        await it.accept(Patch("r0500", None, '{"urgent":1}', priority=9), Patch("new", "n"))
        await it.accept(Patch("newer", None, '{"urgent":2}', priority=5))
        await it.until_requests(40)

        order = [request["run"] for request in await sandbox.requests()]
        assert {"r0500", "newer"} <= set(order[:30])
        assert "new" not in order
        assert (await of(sandbox, "r0500"))[0]["metadata"] == {"n": 500, "urgent": 1}


async def test_the_rest_of_a_run_does_not_ride_on_an_urgent_patch(path: Path) -> None:
    async with (
        sandboxed(latency_s=0.03) as sandbox,
        delivering(path, sandbox, fold=False, in_flight=1) as it,
    ):
        it.gate.pause()
        await it.accept(
            Patch("a", "urgent", priority=9),
            *[Patch("a", str(n)) for n in range(20)],
            *[Patch(run, "less urgent", priority=5) for run in "bcdef"],
        )
        it.gate.resume()
        await it.drained()

        order = [request["run"] for request in await sandbox.requests()]
        assert "".join(order) == "abcdef" + 20 * "a"


# Waking up, resting, stopping


async def test_more_lanes_than_a_page_holds_are_all_delivered(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await it.accept(*[patch(f"r{n}", n) for n in range(700)])
        await it.drained()

        assert await it.wrong_runs() == {}


async def test_deferred_lanes_come_back_by_themselves_without_any_wake_up(path: Path) -> None:
    """Nobody tells the relay of commits here: its own timer must do."""
    async with (
        sandboxed(faults="500=0.5", seed=3) as sandbox,
        delivering(path, sandbox, watching=False) as it,
    ):
        await it.accept(*[patch(f"r{n}", n) for n in range(300)])
        await it.until_requests(250)
        await sandbox.change(faults="")
        counters = await it.drained()

        assert counters["delivered"] == 300


async def test_patches_that_arrive_while_their_run_is_out_go_next_and_none_is_missed(
    path: Path,
) -> None:
    """Producers write to few runs as fast as they can, while those are being delivered."""

    def produce(tag: str) -> None:
        for n in range(60):
            insert(path, (f"r{n % 3}", None, json.dumps({tag: n})))

    async with sandboxed(latency_s=0.001) as sandbox, delivering(path, sandbox) as it:
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for tag in ("a", "b"):
                tasks.create_task(asyncio.to_thread(produce, tag))
        await it.until(lambda counters: counters["delivered"] == 120)

        assert time.monotonic() - started < 15.0, "found by the slow look, not by being told"
        state = await sandbox.state()
        assert {run: state[run]["metadata"] for run in state} == {
            f"r{n}": {"a": 57 + n, "b": 57 + n} for n in range(3)
        }


async def test_a_stop_waits_for_what_is_out_and_begins_nothing_new(path: Path) -> None:
    async with sandboxed(latency_s=0.1) as sandbox:
        async with delivering(path, sandbox, in_flight=2) as it:
            await it.accept(*[patch(f"r{n}", n) for n in range(50)])
            await it.when(lambda: it.relay.in_flight)
        stats = await sandbox.stats()
        found = list(states(path).values())

    assert found.count("delivered") == stats["requests"] < 50
    assert found.count("pending") == 50 - found.count("delivered")


async def test_what_was_not_sent_before_a_stop_is_sent_after_the_next_start(path: Path) -> None:
    async with sandboxed(latency_s=0.01) as sandbox:
        made = some(200, 100)
        for begun in range(4):
            async with delivering(path, sandbox, in_flight=4) as it:
                if not begun:
                    await it.accept(*made)
                await it.until_requests(10)
        async with delivering(path, sandbox) as it:
            it.accepted += [(p.workflow_run_id, p.name, p.metadata) for p in made]
            counters = await it.drained()
            assert counters["delivered"] == 200
            assert await it.wrong_runs() == {}


# Operators


async def test_operators_at_work_never_make_it_send_what_they_took_away(path: Path) -> None:
    async with (
        sandboxed(latency_s=0.005) as sandbox,
        delivering(path, sandbox, in_flight=4, fold=False) as it,
    ):
        await it.accept(*[patch(f"r{n % 20}", n) for n in range(200)])
        await it.until_requests(5)
        held = await operate(it, "hold", Selection(run="r7"))
        gone = await operate(it, "discard", Selection(run="r8"))
        kept = it.states("r7").count("held")
        await it.drained()
        while_held = [body["metadata"]["n"] for body in await of(sandbox, "r7")]
        released = await operate(it, "release", Selection(everything=True))
        counters = await it.drained()

        assert held == kept == released
        assert counters["discarded"] == gone
        assert counters["delivered"] == 200 - gone
        sent = [body["metadata"]["n"] for body in await of(sandbox, "r7")]
        assert sent[: len(while_held)] == while_held
        assert sent == [*range(7, 200, 20)]


async def test_dead_patches_go_again_when_an_operator_says_so(path: Path) -> None:
    async with sandboxed(faults="400=1") as sandbox, delivering(path, sandbox) as it:
        await it.accept(*[patch(f"r{n}", n) for n in range(20)])
        await it.until(lambda counters: counters["dead"] == 20)
        await sandbox.change(faults="")

        assert await operate(it, "retry", Selection(everything=True)) == 20
        assert (await it.drained())["delivered"] == 20
        assert await it.wrong_runs() == {}


async def test_a_retry_sends_a_deferred_patch_at_once(path: Path) -> None:
    async with (
        sandboxed(faults="500=1") as sandbox,
        delivering(path, sandbox, base_s=600.0, cap_s=600.0) as it,
    ):
        await it.accept(patch("r", 1))
        await it.until(lambda _: bool(rows(path, "SELECT 1 FROM lanes")))
        await sandbox.change(faults="")
        await operate(it, "retry", Selection(run="r"))

        assert (await it.drained())["delivered"] == 1


async def test_a_pause_stops_sending_and_intake_goes_on(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        it.gate.pause()
        await it.accept(*some(20, 5))
        assert (await sandbox.stats())["requests"] == 0
        it.gate.resume()

        assert (await it.drained())["delivered"] == 20


# What was done of late


async def test_it_is_at_work_as_long_as_anything_waits_even_for_later(path: Path) -> None:
    async with (
        sandboxed() as sandbox,
        delivering(path, sandbox, base_s=0.1, cap_s=0.1) as it,
    ):
        now = asyncio.get_running_loop().time
        await it.accept(patch("bad~500", 1), patch("good", 2))
        await it.until_requests(4)
        failing = it.relay.figures.lately(now())
        while not await operate(it, "discard", Selection(run="bad~500")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it is in flight, and left alone
        await it.when(lambda: it.relay.figures.lately(now()).worked_s == 0)
        rested = it.relay.figures.lately(now())

    assert failing.requests >= 4
    assert failing.done == 1
    assert failing.worked_s > 0
    assert rested.done == 1


# Rows that are hard to send


async def test_rows_that_no_json_parser_takes_apart_do_not_stop_the_others(path: Path) -> None:
    odd = '{"\\ud800":1}'
    deep = '{"a":' + "[" * 1_900 + "]" * 1_900 + "}"
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        it.gate.pause()
        await asyncio.to_thread(
            insert, path, ("r", None, odd), ("r", "n", None), ("s", None, deep), ("s", "n", None)
        )
        it.gate.resume()
        await it.drained()

        assert (it.states("r")[1], it.states("s")[1]) == ("delivered", "delivered")
        assert len(await of(sandbox, "r")) >= 1


async def test_a_row_that_is_not_utf_8_does_not_stop_the_others(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        row = "('r', CAST(x'4de9' AS TEXT))"
        with closing(sqlite3.connect(path)) as db, suppress(sqlite3.IntegrityError), db:
            db.execute(f"INSERT INTO outbox (workflow_run_id, name) VALUES {row}")
        await it.accept(patch("s", 1))
        async with asyncio.timeout(2.0):
            await it.until(lambda counters: counters["delivered"] == 1)


async def test_a_run_id_that_is_not_utf_8_is_parked_alone(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO outbox (workflow_run_id, name) VALUES (CAST(x'72ff' AS TEXT), 'n')"
            )
        await it.accept(patch("s", 1))
        async with asyncio.timeout(5.0):
            await it.until(lambda counters: counters["delivered"] == counters["dead"] == 1)


async def test_so_is_one_that_the_table_would_refuse(path: Path) -> None:
    """A byte of it has changed on the disk."""
    make_with_a_byte_changed(path)

    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await it.accept(patch("s", 1))
        async with asyncio.timeout(5.0):
            await it.until(lambda counters: counters["delivered"] == counters["dead"] == 1)


def make_with_a_byte_changed(path: Path) -> None:
    open_writer(path).close()
    insert(path, ("run_7", "n", None))
    path.write_bytes(path.read_bytes().replace(b"run_7", b"run\x837"))


# The disk


async def test_while_nothing_can_be_written_answers_wait_and_none_is_lost(path: Path) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox) as it:
        await it.store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 20"))
        await it.accept(*some(50, 20))
        rude = sqlite3.connect(path, isolation_level=None)
        rude.execute("BEGIN IMMEDIATE")
        await it.when(lambda: it.relay.trouble)
        told = it.relay.trouble
        rude.execute("ROLLBACK")
        rude.close()
        counters = await it.drained()
        await it.when(lambda: it.relay.trouble is None)

        assert told is not None
        assert "locked by another process" in told
        assert counters["delivered"] == 50
        assert await it.wrong_runs() == {}


class SlowToRead(Store):
    """A store on a slow disk: each look at one lane takes a moment."""

    async def lane(self, run: str) -> Lane | None:
        found = await super().lane(run)
        await asyncio.sleep(0.02)
        return found


async def test_a_slow_disk_and_a_busy_producer_starve_nobody(path: Path) -> None:
    async with (
        sandboxed() as sandbox,
        delivering(path, sandbox, stores=SlowToRead, rate=200.0) as it,
    ):
        enough = asyncio.Event()

        async def produce() -> None:
            n = 0
            while not enough.is_set():
                n += 1
                await it.accept(patch("busy", n))
                await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(produce())
            await it.accept(*[patch(f"r{n}", n) for n in range(20)])
            try:
                await it.until(lambda counters: counters["delivered"] >= 40, within_s=4.0)
            finally:
                enough.set()
        await it.drained()

        assert await it.wrong_runs() == {}


class SlowToTell(Store):
    """A store whose commits are seen by others well before its caller hears of them."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await super().settle(settlements)
        await asyncio.sleep(0.2)


async def test_what_arrives_between_an_answers_commit_and_its_end_is_not_missed(
    path: Path,
) -> None:
    async with sandboxed() as sandbox, delivering(path, sandbox, stores=SlowToTell) as it:
        await it.accept(patch("good", 1), patch("gone~404", 1))
        await it.until(lambda counters: counters["pending"] == 0)
        await it.accept(patch("good", 2), patch("gone~404", 2))

        await it.until(lambda counters: counters["pending"] == 0, within_s=3.0)
