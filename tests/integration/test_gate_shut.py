"""What shuts the gate and opens it again: Retry-After, a failing service, credentials."""

import asyncio
import random
from dataclasses import replace

import pytest
import structlog
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

from syncd.core.breaker import Probe
from syncd.core.outcome import Outcome
from syncd.core.retry_after import MAX_RETRY_AFTER_S
from syncd.gate import UNASKED_PAUSE_S

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
async def test_a_retry_after_that_is_not_obeyed_is_told_and_waited_for_as_if_there_were_none() -> (
    None
):
    gate = a_gate(started=-10.0)
    await gate.enter()
    told_at = now()
    with structlog.testing.capture_logs() as logged:
        gate.leave("r", replace(too_fast(), disregarded="soon"), probe=False)

    assert told_at + UNASKED_PAUSE_S <= await entered(gate) < told_at + 2 * UNASKED_PAUSE_S
    (told,) = [line for line in logged if line["event"] == "gate.disregarded"]
    assert (told["retry_after"], told["log_level"]) == ("soon", "warning")


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
