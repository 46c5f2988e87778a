"""The sandbox over a real socket: answers, refusals, limit, faults, books, state, stop."""

import asyncio
import io
import json
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from sandboxed import sandboxed
from yarl import URL

from syncd.sandbox import Api, SandboxSettings, serve
from syncd.sandbox.app import Sandbox

RUN = "workflow_run_1234"
GONE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def post(box, run_id, body, prefix="", **headers):
    """Status, headers and body text of an update."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{box.url}{prefix}/workflow_runs/{quote(run_id, safe='')}"
    async with box.session.post(
        URL(url, encoded=True), data=data, headers={**box.headers, **headers}
    ) as reply:
        return reply.status, reply.headers, await reply.text()


async def get(box, run_id, prefix="", **headers):
    """Status, headers and body text of a retrieval."""
    url = f"{box.url}{prefix}/workflow_runs/{quote(run_id, safe='')}"
    async with box.session.get(URL(url, encoded=True), headers={**box.headers, **headers}) as reply:
        return reply.status, reply.headers, await reply.text()


def bare(text):
    """The WorkflowRun of an answer, wrapped or not."""
    body = json.loads(text)
    return body.get("workflowRun", body)


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


async def test_the_books_count_what_is_in_flight_at_once():
    async with sandboxed(latency_s=0.1) as box:
        await asyncio.gather(
            *(post(box, f"{RUN}_{n % 3}", {"metadata": {str(n): n}}) for n in range(6))
        )
        stats = await box.stats()

    assert stats["max_in_flight"] == 6
    assert stats["max_in_flight_per_run"] == 2
    assert stats["requests"] == stats["applied"] == stats["max_in_one_second"] == 6


async def test_the_books_keep_every_body_in_order_of_arrival():
    async with sandboxed() as box:
        await post(box, RUN, b'{"metadata":{"a":1.0}}')
        await post(box, "another", b"{}")
        await post(box, RUN, b"nonsense")
        mine, everyone = await box.requests(RUN), await box.requests()

    assert [each["body"] for each in mine] == ['{"metadata":{"a":1.0}}', "nonsense"]
    assert [each["status"] for each in mine] == [200, 400]
    assert [each["applied"] for each in mine] == [True, False]
    assert mine[0]["at_s"] <= mine[1]["at_s"]
    assert mine[0]["at"].endswith("Z")
    assert [each["run"] for each in everyone] == [RUN, "another", RUN]


@pytest.mark.parametrize(
    ("peer", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.7", 403), ("::2", 403)],
)
async def test_the_books_open_for_this_machine_only(peer, status):
    app = Sandbox(SandboxSettings()).application()
    request = make_mocked_request("GET", "/_sandbox/stats", app=app).clone(remote=peer)
    route = await app.router.resolve(request)

    try:
        answer = await route.handler(request)
    except web.HTTPForbidden as refused:
        answer = refused

    assert answer.status == status


async def test_runs_outlive_a_stop_in_the_state_file(tmp_path):
    file = tmp_path / "state.json"
    async with sandboxed(state_file=file) as box:
        await post(box, RUN, b'{"name":"kept","metadata":{"n":1.0e5}}')

    async with sandboxed(state_file=file, strict=True) as again:
        known, _, text = await get(again, RUN)
        unknown, _, _ = await post(again, "never_seen", {"name": "n"})

    assert (known, unknown) == (200, 404)
    assert '"metadata":{"n":1.0e5}' in text
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


async def test_changes_reach_the_state_file_while_it_runs(tmp_path):
    file = tmp_path / "state.json"
    async with sandboxed(state_file=file) as box, asyncio.timeout(10):
        await post(box, RUN, {"name": "kept"})
        while not file.exists():
            await box.stats()

        assert json.loads(file.read_bytes())["runs"][RUN]["name"] == "kept"


async def test_a_file_that_is_no_state_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "state.json"
    file.write_text("[]")

    with pytest.raises(ValueError, match="not a sandbox's state"):
        async with sandboxed(state_file=file):
            pass

    assert file.read_text() == "[]"


async def test_a_taken_port_is_an_os_error():
    async with sandboxed() as box:
        port = int(box.url.rpartition(":")[2])

        with pytest.raises(OSError, match="in use"):
            await serve(SandboxSettings(port=port), print)


async def test_it_stops_at_once_though_requests_hang():
    listening = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(SandboxSettings(faults="hang=1"), listening.set_result))
    url = f"{await listening}/workflow_runs/{RUN}"
    bearer = {"Authorization": "Bearer sandbox-token"}

    async with aiohttp.ClientSession() as session:
        hung = [asyncio.create_task(session.post(url, headers=bearer)) for _ in range(5)]
        async with asyncio.timeout(5):
            while (await _stats(session, await listening))["faults"] != {"hang": 5}:
                pass
        start = time.monotonic()
        serving.cancel()
        await asyncio.wait({serving})
        took = time.monotonic() - start
        outcomes = await asyncio.gather(*hung, return_exceptions=True)

    assert serving.cancelled()
    assert took < 1.0
    assert all(isinstance(outcome, GONE) for outcome in outcomes)


async def _stats(session, url):
    async with session.get(f"{url}/_sandbox/stats") as reply:
        return await reply.json()
