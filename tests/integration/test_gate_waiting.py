"""Waiting at the gate: entries given back, cancelled, paused, and under new settings."""

import asyncio

import pytest
from gating import (
    GOOD,
    a_gate,
    answered,
    entered,
    in_virtual_time,
    now,
    shut_by_failures,
    stays_shut,
)

from syncd.gate import Limits


@in_virtual_time
async def test_an_entry_that_was_not_used_frees_its_slot() -> None:
    gate = a_gate(in_flight=1)
    await gate.enter()

    gate.give_back(probe=False)

    assert await entered(gate) < 2.0
    assert gate.figures().in_flight == 1


@in_virtual_time
async def test_a_probe_that_was_not_used_is_still_to_come() -> None:
    gate = a_gate(started=-10.0)
    await shut_by_failures(gate)
    probe_at = await entered(gate)

    gate.give_back(probe=True)

    assert gate.figures().breaker == "open"
    assert await entered(gate) < probe_at + 0.1
    assert gate.figures().breaker == "half-open"


@in_virtual_time
async def test_cancelled_while_waiting_nothing_has_changed() -> None:
    gate = a_gate(started=-10.0)
    await shut_by_failures(gate)
    before = gate.figures()
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert gate.figures() == before
    assert await entered(gate) < 2.0


@in_virtual_time
async def test_an_operators_pause_holds_until_it_ends() -> None:
    gate = a_gate(started=-10.0)
    gate.pause()
    assert gate.paused
    assert await stays_shut(gate, 1e6)
    waiting = asyncio.create_task(entered(gate))
    await asyncio.sleep(5.0)

    gate.resume()

    assert await waiting == now()
    assert not gate.paused


@in_virtual_time
async def test_a_pause_reaches_who_is_waiting_already() -> None:
    gate = a_gate(started=0.0)
    waiting = asyncio.create_task(entered(gate))
    await asyncio.sleep(0.5)

    gate.pause()
    await asyncio.sleep(10.0)

    assert not waiting.done()
    gate.resume()
    assert await waiting == 10.5


@in_virtual_time
async def test_new_settings_reach_who_is_waiting_already() -> None:
    gate = a_gate(in_flight=1, started=-10.0)
    await gate.enter()
    waiting = asyncio.create_task(entered(gate))
    await asyncio.sleep(5.0)
    assert not waiting.done()

    gate.limit(Limits(50.0, 4, 1.0, 60.0))
    gate.leave("r", GOOD, probe=False)

    assert await waiting == 5.0
    assert (gate.figures().limit_per_s, gate.figures().max_in_flight) == (50.0, 4)


@in_virtual_time
async def test_whoever_comes_while_another_waits_stands_in_line() -> None:
    gate = a_gate(rate=1.0, started=-10.0)
    order = []

    async def go(name: str) -> None:
        await gate.enter()
        order.append((name, round(now())))
        gate.leave(name, GOOD, probe=False)

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(go(name))

    assert order == [("a", 0), ("b", 1), ("c", 2)]


@in_virtual_time
async def test_the_figures_tell_how_things_stand() -> None:
    gate = a_gate(rate=10.0, started=-10.0)
    fresh = gate.figures()
    for _ in range(30):
        await answered(gate, "r", GOOD)
    await asyncio.sleep(30.0)
    busy = gate.figures()
    await asyncio.sleep(60.0)
    quiet = gate.figures()

    assert (fresh.limit_per_s, fresh.rate_per_s, fresh.max_in_flight) == (10.0, 10.0, 8)
    assert (fresh.closed_for_s, fresh.breaker, fresh.cause) == (None, "closed", None)
    assert (fresh.requests_per_s_1m, busy.requests_per_s_1m, quiet.requests_per_s_1m) == (0, 0.5, 0)


@in_virtual_time
async def test_the_time_of_an_operators_pause_is_no_time_of_work() -> None:
    gate = a_gate(rate=10.0, started=-10.0)
    await asyncio.sleep(30.0)
    gate.resume()
    before = gate.figures().going_s
    gate.pause()
    await asyncio.sleep(30.0)
    gate.resume()
    await asyncio.sleep(5.0)

    assert (before, gate.figures().going_s) == (30.0, 5.0)
