"""The relay: what waits in the outbox ends at the vendor, in order, and within the limits."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from delivering import delivering, of, patch, some
from sandboxed import sandboxed
from stores import insert, states

from syncd.core.patch import Patch
from syncd.store import read

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


# Limits


@pytest.mark.alone
@pytest.mark.parametrize("fold", [False, True], ids=["one by one", "folded"])
async def test_the_limit_is_used_and_never_passed(path: Path, fold: bool) -> None:
    """A machine that holds up a request on its way, and not the next, spoils a try: one of a few
    must show it whole."""
    tries: list[tuple[dict[str, int], int]] = []
    while len(tries) < 4 and not any(kept_to(40, *stats) for stats in tries):
        tries.append(await answered(path.with_name(f"{len(tries)}.db"), fold))

    assert any(kept_to(40, *stats) for stats in tries), tries


def kept_to(limit: int, by_status: dict[str, int], most_in_one_second: int) -> bool:
    return by_status.keys() == {"200"} and most_in_one_second <= limit


async def answered(path: Path, fold: bool) -> tuple[dict[str, int], int]:
    """How requests below a limit of 40 were answered, and the most of them in any second."""
    async with (
        sandboxed(rate=40) as sandbox,
        delivering(path, sandbox, rate=40.0, in_flight=8, fold=fold) as it,
    ):
        await it.accept(*some(100 if not fold else 600, 100))
        await it.drained()

        stats = await sandbox.stats()
        sent = [request["at_s"] for request in await sandbox.requests()]
        # The usual gap: a machine that is busy with other things may stop for a moment.
        assert 1 / median(after - before for before, after in pairwise(sent)) >= 0.97 * 40
        assert await it.wrong_runs() == {}
    return stats["by_status"], stats["max_in_one_second"]


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
