"""The gate lets requests through at the pace and in the window that are set, and no more."""

import asyncio
import random
from itertools import pairwise

import pytest
from gating import (
    FAILING,
    GOOD,
    LOCKED_OUT,
    REFUSED,
    a_gate,
    answered,
    entered,
    in_virtual_time,
    later,
    now,
    shut_by_failures,
    stays_shut,
    too_fast,
)

from syncd.core.outcome import (
    Unavailable,
)
from syncd.core.pace import MARGIN
from syncd.gate import Gate, _cap

# Pace


@in_virtual_time
async def test_the_first_request_waits_until_a_second_after_the_start_is_over() -> None:
    assert await entered(a_gate()) == pytest.approx(MARGIN)


@in_virtual_time
async def test_a_start_long_ago_is_not_waited_for() -> None:
    assert await entered(a_gate(started=-10.0)) == 0.0


@in_virtual_time
async def test_requests_are_spaced_evenly_and_use_the_limit() -> None:
    gate = a_gate(rate=10.0)
    left = []
    for _ in range(101):
        left.append(await entered(gate))
        gate.leave("r", GOOD, probe=False)

    gaps = [after - before for before, after in pairwise(left)]
    assert min(gaps) == pytest.approx(MARGIN / 10)
    assert 100 / (left[-1] - left[0]) >= 0.97 * 10.0


@pytest.mark.parametrize(
    ("rate", "connect_s"), [(10, 0.15), (75, 0.15), (10, 1.5), (1, 0.5), (1, 1.5)]
)
def test_connecting_lets_no_sliding_second_be_too_full(rate: int, connect_s: float) -> None:
    """On a new connection a request arrives late, on an open one at once: never both as one."""

    @in_virtual_time
    async def test() -> None:
        gate = a_gate(float(rate), 64)
        arrived: list[float] = []
        idle = 0

        async def request() -> None:
            nonlocal idle
            if idle:
                idle -= 1
            else:
                await asyncio.sleep(connect_s)
                await gate.connected(connect_s)
            arrived.append(now())
            await asyncio.sleep(0.02)
            idle += 1
            gate.leave("r", GOOD, probe=False)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(10 * rate):
                await gate.enter()
                tasks.create_task(request())

        assert all(later - at > 1.0 for at, later in zip(arrived, arrived[rate:], strict=False))
        under_way = arrived[3 * rate :]
        assert (len(under_way) - 1) / (under_way[-1] - under_way[0]) >= 0.97 * rate

    test()


@in_virtual_time
async def test_where_connecting_is_prompt_or_nobody_has_left_since_nothing_waits_again() -> None:
    for gate, took_s in ((a_gate(10.0), 0.004), (a_gate(0.5), 0.15), (a_gate(0.5), 1.5)):
        left = await entered(gate)
        await asyncio.sleep(took_s)
        assert await gate.connected(took_s)
        assert now() == left + took_s


@pytest.mark.parametrize("took_s", [0.001, 0.5])
@pytest.mark.parametrize("means", ["a pause", "Retry-After", "refused credentials", "failures"])
def test_who_connects_while_the_gate_is_shut_is_sent_back(means: str, took_s: float) -> None:
    @in_virtual_time
    async def test() -> None:
        gate = a_gate(100.0, 64)
        await gate.enter()
        match means:
            case "a pause":
                gate.pause()
            case "Retry-After":
                await answered(gate, "r", too_fast(30.0))
            case "refused credentials":
                await answered(gate, "r", LOCKED_OUT)
            case _:
                await shut_by_failures(gate)
        assert gate.shut
        assert not await gate.connected(took_s)

    test()


@in_virtual_time
async def test_a_probe_that_connects_may_go() -> None:
    gate = a_gate(10.0)
    await gate.enter()
    gate.leave("r", LOCKED_OUT, probe=False)
    assert await gate.enter()
    assert await gate.connected(0.5)


@pytest.mark.parametrize(
    ("rate", "most", "seconds"), [(8.0, 8, 1.0), (2.5, 2, 1.0), (1.0, 1, 1.0), (0.25, 1, 4.0)]
)
def test_the_hard_cap_behind_the_pace_is_the_limit(rate: float, most: int, seconds: float) -> None:
    cap = _cap(rate)

    assert (cap.rate_limit, cap.period) == (most, seconds)


# Window


@in_virtual_time
async def test_no_more_requests_are_out_than_the_window_has_slots() -> None:
    gate = a_gate(in_flight=2)
    await gate.enter()
    await gate.enter()

    assert await stays_shut(gate, 1_000.0)
    gate.leave("r", GOOD, probe=False)
    before = now()
    assert await entered(gate) == before
    assert gate.figures().in_flight == 2


@in_virtual_time
async def test_the_window_starts_small_and_grows_with_good_answers() -> None:
    gate = a_gate(in_flight=8)
    sizes = []
    for _ in range(5):
        sizes.append(gate.figures().window)
        while gate.figures().in_flight < gate.figures().window:
            await gate.enter()
        while gate.figures().in_flight:
            gate.leave("r", GOOD, probe=False)

    assert sizes == [2, 3, 4, 5, 6]


# All of it at once


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_answered_the_limits_hold(seed: int) -> None:
    """Requests that take any time and end in any way: at the server, nothing is ever too much."""
    chance = random.Random(seed)
    rate, most = chance.choice([(5.0, 2), (20.0, 8), (100.0, 16)])
    left: list[float] = []
    forbidden: list[tuple[float, float]] = []
    out = peak = 0

    async def request(gate: Gate, run: str, probe: bool) -> None:
        nonlocal out, peak
        left.append(now())
        out += 1
        peak = max(peak, out)
        await asyncio.sleep(chance.choice([0.0, 0.01, 0.3, 3.0]))
        asked = chance.choice([None, 0.0, 0.5, 5.0])
        outcome = chance.choice(
            [*[GOOD] * 10, REFUSED, FAILING, FAILING, LOCKED_OUT, too_fast(asked), later(asked)]
        )
        if isinstance(outcome, Unavailable) and outcome.retry_after_s is not None:
            forbidden.append((now(), now() + outcome.retry_after_s))
        out -= 1
        gate.leave(run, outcome, probe=probe)

    @in_virtual_time
    async def test() -> None:
        gate = a_gate(rate, most, cap_s=5.0, draw=chance.random)
        async with asyncio.TaskGroup() as tasks:
            for n in range(400):
                probe = await gate.enter()
                if chance.random() < 0.05:
                    gate.give_back(probe=probe)
                else:
                    tasks.create_task(request(gate, f"run {n % 10}", probe))
        assert gate.figures().in_flight == 0

    test()

    assert left[0] >= MARGIN
    assert peak <= most
    for n, at in enumerate(left):
        assert sum(1 for other in left[n:] if other - at < 1.0) <= rate
    for begin, end in forbidden:
        assert not [at for at in left if begin < at < end]
