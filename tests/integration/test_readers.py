"""What is read over the control socket: rows as from the file, in answers of any length."""

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest
from asking import Asking
from stores import delivered, fill, insert

from syncd import readers
from syncd.store import read


async def test_rows_come_one_a_line_as_from_the_file(asking: Asking) -> None:
    store = asking.it.store
    await asyncio.to_thread(insert, store.path, ("r", None, '{\n"n": 1.50\n}'), ("s", "n", None))
    began = store.now()
    await store.settle([delivered("s", 2, metadata='{"k":"v"}')])

    patches = await asking.get("/read/patches")
    by_run = await asking.get("/read/patches?run=s&limit=5")
    since = await asking.get(f"/read/patches?state=delivered&since={began}")
    later = await asking.get(f"/read/patches?state=delivered&since={store.now() + 60.0}")
    one = await asking.get("/read/patch?id=1")
    snapshot = await asking.get("/read/snapshot?run=s")
    runs = await asking.get("/read/runs?status=PROCESSED&where=k%3Dv")

    assert [row["id"] for row in patches] == [1, 2]
    assert [row["id"] for row in by_run] == [2]
    assert ([row["id"] for row in since], later) == ([2], [])
    assert [row["metadata"] for row in one] == [{"n": 1.5}]
    assert [row["workflow_run"]["id"] for row in snapshot] == ["s"]
    assert [row["workflow_run_id"] for row in runs] == ["s"]


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("/read/patches?since=noon", 400, "could not convert"),
        ("/read/patch?id=7", 404, "no patch 7 in the outbox"),
        ("/read/snapshot?run=r", 404, "no snapshot of r"),
        ("/read/why?id=7", 404, "no patch 7 in the outbox"),
        ("/read/why?run=r", 404, "no patch for run r"),
        ("/read/why?id=x", 400, "x"),
        ("/read/plan?limit=x", 400, "x"),
        ("/read/runs?where=k", 400, "must be KEY=VALUE"),
        ("/read/patches?limit=x", 400, "x"),
        ("/read/runs?limit=-1", 400, "must be 0 or more"),
        ("/read/minds", 404, "nothing to read called minds"),
    ],
)
async def test_what_is_not_there_is_told(
    asking: Asking, what: str, status: int, reason: str
) -> None:
    refused, error = await asking.refused("GET", what)

    assert refused == status
    assert reason in error


async def many(asking: Asking) -> int:
    """More patches than the socket holds for a reader who does not read. How many."""
    long = json.dumps({"x": "y" * 5_000})
    await fill(asking.it.store, *[(f"r{n}", long) for n in range(2_000)])
    return 2_000


async def test_an_answer_of_any_length_is_whole(asking: Asking) -> None:
    number = await many(asking)

    listed = await asking.get(f"/read/patches?limit={2 * number}")
    first = await asking.get("/read/patches?limit=7")
    none = await asking.get("/read/patches?state=dead")

    assert [row["id"] for row in listed] == list(range(1, number + 1))
    assert [row["id"] for row in first] == list(range(1, 8))
    assert none == []


async def test_who_has_seen_enough_may_go(asking: Asking, caplog: pytest.LogCaptureFixture) -> None:
    await many(asking)

    for _ in range(2 * readers.MAX_READERS):
        async with asking.session.get("http://syncd/read/patches?limit=9999") as reply:
            assert (await reply.content.readline()).startswith(b'{"id":1,')

    assert len(await asking.get("/read/patches")) == read.LIMIT


async def test_there_are_never_too_many_long_answers_at_once(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(asking)
    monkeypatch.setattr(readers, "QUEUE_S", 0.05)

    async with AsyncExitStack() as stack:
        for _ in range(readers.MAX_READERS):
            answer = asking.session.get("http://syncd/read/patches?limit=9999")
            await stack.enter_async_context(answer)
        status, error = await asking.refused("GET", "/read/patches")
        one = await asking.get("/read/patch?id=1")

    assert status == 503
    assert error.startswith("8 commands read long answers at this moment: end one")
    assert one[0]["id"] == 1
    assert len(await asking.get("/read/patches")) == read.LIMIT


async def test_a_search_gives_signs_of_life(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that hears nothing for some seconds takes the daemon for stuck."""
    await fill(asking.it.store, ("r", "{}"))
    monkeypatch.setattr(readers, "ALIVE_EVERY_S", 0.0)

    async with asking.session.get("http://syncd/read/patches") as reply:
        text = await reply.text()

    assert text.startswith("\n")
    assert [json.loads(line)["id"] for line in text.split()] == [1]


async def test_an_answer_whose_reader_stalls_is_cut_and_not_taken_for_the_whole(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(asking)
    monkeypatch.setattr(readers, "STALLED_S", 0.2)
    monkeypatch.setattr(readers, "QUEUE_S", 20.0)

    stalled = [
        await asking.session.get("http://syncd/read/patches?limit=9999")
        for _ in range(readers.MAX_READERS)
    ]
    listed = await asking.get("/read/patches")  # as soon as one of them is cut
    ends = await asyncio.gather(*(one.read() for one in stalled), return_exceptions=True)

    assert len(listed) == read.LIMIT
    assert any(isinstance(end, aiohttp.ClientError) for end in ends)
