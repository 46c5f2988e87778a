"""The sandbox's books, its state file, and how it starts and stops."""

import asyncio
import json
import time

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from sandboxed import sandboxed
from updating import GONE, RUN, get, post

from syncd.sandbox import SandboxSettings, serve
from syncd.sandbox.app import Sandbox


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
    assert took < 5.0
    assert all(isinstance(outcome, GONE) for outcome in outcomes)


async def _stats(session, url):
    async with session.get(f"{url}/_sandbox/stats") as reply:
        return await reply.json()
