"""The sandbox fails as it is told to, until it is told otherwise."""

import asyncio
import json
import time

import aiohttp
import pytest
from sandboxed import sandboxed
from updating import GONE, RUN, bare, post


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "INVALID_REQUEST", False),
        (401, "UNAUTHORIZED", False),
        (404, "NOT_FOUND", False),
        (422, "INVALID_REQUEST", False),
        (429, "RATE_LIMIT_EXCEEDED", True),
        (500, "INTERNAL_ERROR", True),
        (503, "INTERNAL_ERROR", True),
    ],
)
async def test_a_run_id_can_carry_a_status(status, code, retryable):
    async with sandboxed(api="2026-02-09") as box:
        got, _, text = await post(box, f"{RUN}~{status}", {"name": "n"})
        stats, state = await box.stats(), await box.state()

    body = json.loads(text)
    assert (got, body["code"], body["retryable"]) == (status, code, retryable)
    assert stats["faults"] == {str(status): 1}
    assert stats["refused_429_limit"] == 0
    assert state == {}


@pytest.mark.parametrize(("kind", "applied"), [("drop", 0), ("drop_after", 1)])
async def test_a_dropped_connection_leaves_the_update_applied_or_not(kind, applied):
    async with sandboxed() as box:
        with pytest.raises(GONE):
            await post(box, f"{RUN}~{kind}", {"name": "n"})
        stats, state = await box.stats(), await box.state()
        (request,) = await box.requests(f"{RUN}~{kind}")

    assert stats["applied"] == len(state) == applied
    assert stats["by_status"] == {}
    assert (request["status"], request["fault"]) == (None, kind)
    assert request["applied"] == bool(applied)


async def test_a_zombie_is_cut_off_now_and_applied_later():
    run_id = f"{RUN}~zombie"

    async with sandboxed(faults="zombie_s=0.1") as box:
        with pytest.raises(GONE):
            await post(box, run_id, {"name": "late"})
        before = await box.state()
        async with asyncio.timeout(5):
            while not (await box.requests(run_id))[0]["applied"]:
                pass
        after = await box.state()

    assert before == {}
    assert after[run_id]["name"] == "late"


async def test_a_hung_request_ends_with_its_client_and_is_then_not_in_flight():
    run_id = f"{RUN}~hang"
    impatient = aiohttp.ClientTimeout(total=0.05)

    async with sandboxed() as box:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await box.session.post(
                    f"{box.url}/workflow_runs/{run_id}",
                    json={"name": "n"},
                    headers=box.headers,
                    timeout=impatient,
                )
        stats, state = await box.stats(), await box.state()

    assert stats["faults"] == {"hang": 3}
    assert stats["max_in_flight_per_run"] == 1
    assert state == {}


async def test_answers_can_be_garbage_false_or_about_another_run():
    async with sandboxed() as box:
        garbage = await post(box, f"{RUN}~garbage", {"name": "n"})
        refused = await post(box, f"{RUN}~false", {"name": "n"})
        wrong = await post(box, f"{RUN}~wrong_id", {"name": "n"})
        state = await box.state()

    assert [garbage[0], refused[0], wrong[0]] == [200, 200, 200]
    assert garbage[2].startswith("<html>")
    assert json.loads(refused[2])["success"] is False
    assert bare(wrong[2])["id"] != f"{RUN}~wrong_id"
    assert state == {}


async def test_a_slow_answer_is_honest_and_late():
    async with sandboxed(faults="slow_s=0.2") as box:
        start = time.monotonic()
        status, _, _ = await post(box, f"{RUN}~slow", {"name": "n"})
        took = time.monotonic() - start
        state = await box.state()

    assert status == 200
    assert took >= 0.2
    assert state[f"{RUN}~slow"]["name"] == "n"


async def test_a_seed_draws_the_same_faults_again():
    async def statuses():
        async with sandboxed(faults="500=0.3,404=0.2", seed=11) as box:
            return [(await post(box, RUN, {"name": "n"}))[0] for _ in range(60)]

    first = await statuses()

    assert first == await statuses()
    assert set(first) == {200, 404, 500}


async def test_an_outage_is_healed_while_it_runs():
    async with sandboxed(faults="503=1") as box:
        during, _, _ = await post(box, RUN, {"name": "n"})
        await box.change(faults="", token="another", rate=3)
        old, _, _ = await post(box, RUN, {"name": "n"})
        new, _, _ = await post(box, RUN, {"name": "n"}, Authorization="Bearer another")
        fourth, _, _ = await post(box, RUN, {"name": "n"}, Authorization="Bearer another")

    assert (during, old, new, fourth) == (503, 401, 200, 429)


@pytest.mark.parametrize(
    "change", [b'{"fault":""}', b'{"faults":"x=1"}', b'{"rate":-1}', b"[]", b"{"]
)
async def test_a_bad_change_of_settings_is_refused_and_changes_nothing(change):
    async with sandboxed() as box:
        async with box.session.post(f"{box.url}/_sandbox/settings", data=change) as reply:
            body = await reply.json()
        status, _, _ = await post(box, RUN, {"name": "n"})

    assert reply.status == 400
    assert body["error"]
    assert status == 200
