"""The sandbox over a real socket: answers, refusals, limit."""

import io
import json
import time
from email.utils import parsedate_to_datetime

import pytest
from sandboxed import sandboxed
from updating import RUN, bare, get, post

from syncd.sandbox import Api


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("api", Api)
async def test_an_update_is_merged_answered_and_retrieved_in_every_generation(api, prefix):
    async with sandboxed(api=api) as box:
        await post(box, RUN, {"name": "first", "metadata": {"a": 1, "b": 1}}, prefix)
        status, headers, text = await post(box, RUN, {"metadata": {"b": 2}}, prefix)
        retrieved = await get(box, RUN, prefix)
        state = await box.state()

    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert "x-extend-request-id" not in headers
    assert bare(text)["metadata"] == {"a": 1, "b": 2}
    assert ("workflowRun" in json.loads(text)) == (api != Api.V2026)
    assert retrieved[2] == text
    assert state == {RUN: {"name": "first", "metadata": {"a": 1, "b": 2}}}


async def test_a_run_exists_once_named_but_only_an_update_writes_it_down():
    async with sandboxed() as box:
        status, _, text = await get(box, RUN)
        state = await box.state()

    assert status == 200
    assert bare(text)["metadata"] == {}
    assert state == {}


@pytest.mark.parametrize(
    "run_id", ["a/b", "a?b#c", "100%", "%2F", "é ü", "a+b", "x" * 255, "~", ":"]
)
async def test_any_run_id_arrives_whole(run_id):
    async with sandboxed() as box:
        status, _, text = await post(box, run_id, {"name": "n"})
        state = await box.state()

    assert status == 200
    assert bare(text)["id"] == run_id
    assert list(state) == [run_id]


async def test_numbers_are_kept_and_returned_as_they_were_written():
    written = b'{"metadata":{"a":1.0e5,"b":12345678901234567890123,"c":{"d":[1.50]}}}'

    async with sandboxed(merge="deep") as box:
        _, _, answer = await post(box, RUN, written)
        async with box.session.get(f"{box.url}/_sandbox/state") as reply:
            state = await reply.text()

    for text in (answer, state):
        assert '"metadata":{"a":1.0e5,"b":12345678901234567890123,"c":{"d":[1.50]}}' in text


@pytest.mark.parametrize(
    ("merge", "null", "expected"),
    [
        ("shallow", "store", {"o": {"y": 2}, "n": None}),
        ("shallow", "delete", {"o": {"y": 2}}),
        ("deep", "store", {"o": {"x": 1, "y": 2}, "n": None}),
        ("deep", "delete", {"o": {"x": 1, "y": 2}}),
    ],
)
async def test_the_merge_model_is_a_switch(merge, null, expected):
    async with sandboxed(merge=merge, null=null) as box:
        await post(box, RUN, {"metadata": {"o": {"x": 1}, "n": 1}})
        await post(box, RUN, {"metadata": {"o": {"y": 2}, "n": None}})
        state = await box.state()

    assert state[RUN]["metadata"] == expected


async def test_refusals_of_2026_are_bare_and_carry_their_request_id():
    async with sandboxed(api="2026-02-09") as box:
        status, headers, text = await post(box, RUN, b"{nonsense")

    body = json.loads(text)
    assert status == 400
    assert set(body) == {"code", "message", "retryable", "requestId"}
    assert (body["code"], body["retryable"]) == ("INVALID_REQUEST", False)
    assert body["requestId"] == headers["x-extend-request-id"]


@pytest.mark.parametrize("api", [Api.V1, Api.V2024, Api.V2025])
async def test_refusals_of_older_generations_say_success_false(api):
    async with sandboxed(api=api) as box:
        status, headers, text = await post(box, RUN, {"name": 5})

    body = json.loads(text)
    assert status == 400
    assert set(body) == {"success", "error"}
    assert body["success"] is False
    assert headers["x-extend-request-id"].startswith("req_")


@pytest.mark.parametrize("authorization", ["Bearer wrong", "sandbox-token", "Basic x", ""])
async def test_without_the_right_bearer_everything_is_401(authorization):
    async with sandboxed(api="2026-02-09") as box:
        status, _, text = await post(box, RUN, {"name": "n"}, Authorization=authorization)
        state = await box.state()

    assert (status, json.loads(text)["code"]) == (401, "UNAUTHORIZED")
    assert state == {}


async def test_dated_generations_want_their_own_version_header():
    async with sandboxed(api="2025-04-21") as box:
        bearer = {"Authorization": box.headers["Authorization"]}
        url = f"{box.url}/workflow_runs/{RUN}"
        async with box.session.get(url, headers=bearer) as missing:
            await missing.read()
        wrong, _, _ = await get(box, RUN, **{"x-extend-api-version": "2024-12-23"})

    assert (missing.status, wrong) == (400, 400)


async def test_a_missing_version_header_can_be_let_pass():
    bearer = {"Authorization": "Bearer sandbox-token"}

    async with (
        sandboxed(api="2025-04-21", require_version=False) as box,
        box.session.get(f"{box.url}/workflow_runs/{RUN}", headers=bearer) as reply,
    ):
        assert reply.status == 200


async def test_a_body_over_a_megabyte_is_refused():
    async with sandboxed() as box:
        body = io.BytesIO(b'{"name": "%s"}' % (b"n" * 1_100_000))
        url = f"{box.url}/workflow_runs/{RUN}"
        async with box.session.post(url, data=body, headers=box.headers) as reply:
            answer = await reply.json()

    assert reply.status == 413
    assert answer["success"] is False


async def test_merged_metadata_over_ten_kilobytes_is_refused_and_not_kept():
    async with sandboxed() as box:
        first, _, _ = await post(box, RUN, {"metadata": {"a": "x" * 6_000}})
        second, _, _ = await post(box, RUN, {"metadata": {"b": "x" * 6_000}})
        state = await box.state()

    assert (first, second) == (200, 400)
    assert list(state[RUN]["metadata"]) == ["a"]


async def test_a_run_that_has_ended_can_be_made_to_refuse():
    async with sandboxed(refuse_terminal=True) as box:
        ended, _, _ = await post(box, "a~PROCESSED", {"name": "n"})
        running, _, _ = await post(box, "a~PENDING", {"name": "n"})

    assert (ended, running) == (400, 200)


async def test_a_poison_key_is_refused_alone():
    async with sandboxed() as box:
        poison, _, _ = await post(box, RUN, {"metadata": {"sandbox_refuse": 1, "a": 1}})
        healthy, _, _ = await post(box, RUN, {"metadata": {"b": 1}})
        state = await box.state()

    assert (poison, healthy) == (422, 200)
    assert state[RUN]["metadata"] == {"b": 1}


async def test_other_endpoints_are_404_in_the_shape_of_the_generation():
    async with (
        sandboxed(api="2026-02-09") as box,
        box.session.delete(f"{box.url}/workflow_runs/{RUN}") as reply,
    ):
        body = await reply.json()

        assert (reply.status, body["code"]) == (404, "NOT_FOUND")


async def test_over_the_limit_it_is_429_and_only_admitted_requests_count():
    async with sandboxed(api="2026-02-09", rate=5) as box:
        replies = [await post(box, RUN, {"name": str(n)}) for n in range(12)]
        stats = await box.stats()

    statuses = [status for status, _, _ in replies]
    body = json.loads(replies[-1][2])
    assert statuses == [200] * 5 + [429] * 7
    assert replies[-1][1]["Retry-After"] == "1"
    assert (body["code"], body["retryable"]) == ("RATE_LIMIT_EXCEEDED", True)
    assert stats["refused_429_limit"] == 7
    assert stats["applied"] == 5
    assert stats["max_in_one_second"] == stats["requests"] == 12
    assert stats["by_status"] == {"200": 5, "429": 7}


async def test_retry_after_can_be_a_date_or_be_missing():
    async with sandboxed(retry_after="date") as dated, sandboxed(retry_after="none") as silent:
        before = time.time()
        _, date, _ = await get(dated, f"{RUN}~429")
        _, nothing, _ = await get(silent, f"{RUN}~429")

    assert parsedate_to_datetime(date["Retry-After"]).timestamp() >= before + 1
    assert "Retry-After" not in nothing


async def test_reads_and_writes_share_the_limit_unless_told_otherwise():
    async with sandboxed(rate=1) as shared, sandboxed(rate=1, rate_per_category=True) as apart:
        together = [(await post(shared, RUN, {}))[0], (await get(shared, RUN))[0]]
        separate = [(await post(apart, RUN, {}))[0], (await get(apart, RUN))[0]]

    assert together == [200, 429]
    assert separate == [200, 200]
