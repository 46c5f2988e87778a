"""Trouble on the way: of one run, of all, of a row and of the disk; no more suffer than must."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from delivering import delivering, of, patch, some
from sandboxed import sandboxed
from stores import insert, rows

from syncd.core.schedule import Lane
from syncd.core.settlement import Settlement
from syncd.store import Store
from syncd.store.schema import open_writer

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
