"""The gate: every request waits for pace, window, breaker, Retry-After and the operator.

A loop whose clock leaps to the next timer makes an hour of waiting take no time.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
import structlog
from asyncio_throttle.throttler import Throttler

from syncd.core.answer import Run
from syncd.core.breaker import Probe
from syncd.core.outcome import (
    MAX_RETRY_AFTER_S,
    Blame,
    Confirmed,
    LockedOut,
    Outcome,
    Refused,
    Trouble,
    Unavailable,
)
from syncd.core.pace import MARGIN
from syncd.gate import UNASKED_PAUSE_S, Gate, Limits, _cap
from syncd.selftest.time import VirtualLoop

GOOD = Confirmed(Run("r", b"{}", None, None, None))
REFUSED = Refused(Trouble(Blame.PATCH, "c", "m"))
LOCKED_OUT = LockedOut(Trouble(Blame.CREDENTIALS, "UNAUTHORIZED", "m"))
FAILING = Unavailable(Trouble(Blame.SERVER, "http_500", "m"))


def later(retry_after_s: float | None) -> Unavailable:
    return Unavailable(Trouble(Blame.SERVER, "http_503", "m"), retry_after_s, overloaded=True)


def too_fast(retry_after_s: float | None = None) -> Unavailable:
    trouble = Trouble(Blame.SERVER, "RATE_LIMIT_EXCEEDED", "m")
    return Unavailable(trouble, retry_after_s, throttled=True, overloaded=True)


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a loop of its own that never really waits."""

    @wraps(test)
    def run() -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(test())
        finally:
            loop.close()

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def a_gate(rate: float = 100.0, in_flight: int = 8, *, cap_s: float = 60.0, **more: Any) -> Gate:
    """A gate whose first second is over after a pace.MARGIN; half of every backoff is drawn."""
    settings = {
        "started": 0.0,
        "draw": lambda: 0.0,
        "throttle": lambda _: Throttler(1_000_000),
        **more,
    }
    return Gate(Limits(rate, in_flight, 1.0, cap_s), now, **settings)


async def entered(gate: Gate, within_s: float = 3600.0) -> float:
    """When the next request may go."""
    async with asyncio.timeout(within_s):
        await gate.enter()
    return now()


async def answered(gate: Gate, run: str, outcome: Outcome) -> bool:
    """Let the next request go and give it that answer; whether the service is back by it."""
    return gate.leave(run, outcome, probe=await gate.enter())


async def stays_shut(gate: Gate, for_s: float) -> bool:
    """Whether nothing may go for so long. Waiting in vain changes nothing."""
    try:
        await entered(gate, for_s)
    except TimeoutError:
        return True
    return False


async def shut_by_failures(gate: Gate) -> float:
    """Let five requests of three runs fail; when the last of them did."""
    for run in "abcab":
        await answered(gate, run, FAILING)
    return now()


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


# Retry-After


@pytest.mark.parametrize(
    ("outcome", "pause_s"),
    [
        (too_fast(7.0), 7.0),
        (too_fast(0.0), 0.0),
        (too_fast(), UNASKED_PAUSE_S),
        (later(30.0), 30.0),
    ],
)
def test_a_retry_after_is_waited_for_by_everything(outcome: Outcome, pause_s: float) -> None:
    @in_virtual_time
    async def test() -> None:
        gate = a_gate(started=-10.0)
        await gate.enter()
        told_at = now()
        gate.leave("r", outcome, probe=False)
        shown = gate.figures().closed_for_s

        assert await entered(gate) >= told_at + pause_s
        assert shown == (pytest.approx(pause_s) if pause_s else None)

    test()


@in_virtual_time
async def test_of_several_retry_afters_the_longest_holds() -> None:
    gate = a_gate(started=-10.0)
    await gate.enter()
    await gate.enter()
    told_at = now()
    gate.leave("a", too_fast(60.0), probe=False)
    gate.leave("b", too_fast(1.0), probe=False)

    assert await entered(gate) >= told_at + 60.0


@in_virtual_time
async def test_a_retry_after_outlives_a_restart_but_never_by_more_than_is_believed() -> None:
    assert await entered(a_gate(closed_for_s=30.0)) == 30.0
    forever = a_gate(closed_for_s=1e9, started=now() - 10.0)
    assert await entered(forever, 2 * MAX_RETRY_AFTER_S) == 30.0 + MAX_RETRY_AFTER_S


@in_virtual_time
async def test_being_too_fast_slows_down_once_and_it_recovers() -> None:
    gate = a_gate(rate=10.0, started=-10.0)
    await gate.enter()
    await answered(gate, "a", too_fast(1.0))
    gate.leave("b", too_fast(1.0), probe=False)
    slowed = gate.figures().rate_per_s
    for _ in range(200):
        await answered(gate, "a", GOOD)

    assert slowed == pytest.approx(7.0)
    assert gate.figures().rate_per_s == 10.0


@in_virtual_time
async def test_being_too_fast_is_no_outage() -> None:
    gate = a_gate(started=-10.0)
    for run in "abcdefgh":
        await answered(gate, run, too_fast(0.1))

    assert gate.figures().breaker == "closed"


# Breaker


@in_virtual_time
async def test_a_failing_service_is_left_alone_but_for_one_probe_at_a_time() -> None:
    gate = a_gate(started=-10.0)
    shut_at = await shut_by_failures(gate)
    assert gate.figures().breaker == "open"

    probe_at = await entered(gate)

    assert 0.5 <= probe_at - shut_at <= 1.0
    assert gate.figures().breaker == "half-open"
    assert await stays_shut(gate, 1_000.0)


@in_virtual_time
async def test_probes_come_ever_more_rarely_but_at_least_every_cap() -> None:
    gate = a_gate(started=-10.0, cap_s=20.0, draw=random.Random(1).random)
    last = await shut_by_failures(gate)
    gaps = []
    for _ in range(12):
        probe_at = await entered(gate)
        gaps.append(probe_at - last)
        gate.leave("a", FAILING, probe=True)
        last = now()

    assert gaps[0] <= 1.0
    assert all(10.0 <= gap <= 20.001 for gap in gaps[6:])


@pytest.mark.parametrize("answer", [GOOD, REFUSED])
def test_one_answer_in_its_right_mind_opens_the_gate_again_slowly(answer: Outcome) -> None:
    @in_virtual_time
    async def test() -> None:
        gate = a_gate(started=-10.0)
        await shut_by_failures(gate)
        assert await answered(gate, "a", answer) is True
        assert gate.figures().breaker == "closed"
        assert gate.figures().window == 1
        assert await answered(gate, "a", GOOD) is False

    test()


@pytest.mark.parametrize(
    ("answer", "cause", "reason"),
    [(FAILING, "server", "http_500"), (LOCKED_OUT, "credentials", "UNAUTHORIZED")],
)
def test_the_log_has_what_shut_the_gate_and_which_trouble_is_over(
    answer: Outcome, cause: str, reason: str
) -> None:
    @in_virtual_time
    async def test() -> None:
        gate = a_gate(started=-10.0)
        for run in "abcab" if answer is FAILING else "a":
            await answered(gate, run, answer)
        await answered(gate, "a", GOOD)

    structlog.reset_defaults()  # other tests want less told
    with structlog.testing.capture_logs() as said:
        test()

    shut, opened = said
    assert (shut["event"], shut["cause"]) == ("gate.shut", cause)
    assert (shut["reason"], shut["message"]) == (reason, "m")
    assert (opened["event"], opened["cause"]) == ("gate.open", cause)


@in_virtual_time
async def test_one_run_that_keeps_failing_does_not_shut_the_gate() -> None:
    gate = a_gate(started=-10.0)
    for _ in range(100):
        await answered(gate, "unlucky", FAILING)

    assert gate.figures().breaker == "closed"


@in_virtual_time
async def test_refused_credentials_block_everything_and_are_told_apart_from_an_outage() -> None:
    gate = a_gate(started=-10.0)
    await answered(gate, "a", LOCKED_OUT)

    assert gate.blocked
    assert gate.figures().cause == "credentials"
    assert await stays_shut(gate, 0.4)
    await gate.enter()
    assert gate.blocked
    assert gate.leave("a", GOOD, probe=False) is True
    assert not gate.blocked


@in_virtual_time
async def test_a_lockout_ends_where_the_probe_finds_the_service_failing() -> None:
    """Nobody is told to see to credentials that the last answer says nothing about."""
    gate = a_gate(started=-10.0)
    with structlog.testing.capture_logs() as said:
        await answered(gate, "a", LOCKED_OUT)
        stood = [(gate.blocked, gate.down, gate.lockout)]
        for outcome in (FAILING, LOCKED_OUT):
            gate.leave("a", outcome, probe=await gate.enter())
            stood.append((gate.blocked, gate.down, gate.lockout))

    refused = (True, False, LOCKED_OUT.trouble)
    assert stood == [refused, (False, True, None), refused]
    assert [(line["event"], line["cause"]) for line in said] == [
        ("gate.shut", "credentials"),
        ("gate.shut", "server"),
        ("gate.shut", "credentials"),
    ]


@in_virtual_time
async def test_it_tells_whether_somebody_can_hurry_the_probe() -> None:
    """Not while one is out, and not while a pause or a silence has to end first."""
    gate = a_gate(started=-10.0, cap_s=60.0)
    told = [gate.probe]
    await answered(gate, "a", LOCKED_OUT)
    told.append(gate.probe)
    gate.pause()
    told.append(gate.probe)
    gate.resume()
    await gate.enter()
    told.append(gate.probe)
    gate.leave("a", later(3_000.0), probe=True)
    told.append(gate.probe)

    assert told == [None, Probe.AWAITED, None, Probe.OUT, None]


@in_virtual_time
async def test_a_new_token_is_tried_at_once() -> None:
    gate = a_gate(started=-10.0, cap_s=10_000.0)
    for _ in range(12):
        await answered(gate, "a", LOCKED_OUT)
    waiting = asyncio.create_task(entered(gate))
    await asyncio.sleep(1.0)

    gate.hurry()

    assert await waiting == now()
    assert gate.leave("a", GOOD, probe=False) is True


def test_answers_from_before_it_was_shut_do_not_let_a_second_probe_out() -> None:
    @in_virtual_time
    async def test() -> None:
        gate = a_gate(started=-10.0)
        for _ in range(10):  # room for eight at once
            await gate.enter()
            await answered(gate, "a", GOOD)
            gate.leave("b", GOOD, probe=False)
        for _ in "abcdefgh"[: gate.figures().window]:
            await gate.enter()
        for run in "abcab":
            gate.leave(run, FAILING, probe=False)
        await entered(gate)
        assert gate.figures().breaker == "half-open"

        gate.leave("late", FAILING, probe=False)

        assert await stays_shut(gate, 1_000.0)

    test()


# Give back, cancel, pause, reload


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
