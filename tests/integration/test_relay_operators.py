"""The relay does what operators say, and tells whether it is at work."""

import asyncio
from pathlib import Path

from delivering import Delivering, delivering, of, patch, some
from sandboxed import sandboxed
from stores import rows

from syncd.store import Selection, Verb


async def operate(it: Delivering, verb: Verb, selection: Selection) -> int:
    """What `control` does for an operator."""
    async with it.relay.standing_still() as in_flight:
        return (await it.store.operate(verb, selection, in_flight=in_flight)).touched


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
