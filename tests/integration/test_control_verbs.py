"""What is changed over the control socket: enqueue, the operator's verbs, pause."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from asking import Asking, listening
from delivering import delivering
from sandboxed import sandboxed
from stores import dead, delivered, fill, opened, rows, states

from syncd import control
from syncd.control import MAX_BODY_BYTES
from syncd.core.breaker import Probe
from syncd.core.outcome import Blame, Refused, Trouble, Unavailable
from syncd.core.patch import Patch
from syncd.spool import Spool
from syncd.status import Status
from syncd.store import read
from syncd.store.facts import PAUSED, fact
from syncd.store.steps import STEP_PATCHES


async def test_enqueued_patches_are_on_disk_when_it_answers(asking: Asking) -> None:
    lines = (
        b'{"workflow_run_id":"r","metadata":{"n":1.0e5}}\n\n'
        b'  {"workflow_run_id":"s","name":"x","idempotency_key":"k","priority":3}\r\n'
        b'{"workflow_run_id":"s","name":"y","idempotency_key":"k"}'
    )

    answer = await asking.post("/enqueue", lines)

    assert answer == {"accepted": 2, "duplicates": 1, "first_id": 1, "last_id": 2}
    assert rows(
        asking.it.store.path,
        "SELECT workflow_run_id, name, metadata, idempotency_key, priority FROM outbox",
    ) == [("r", None, '{"n":1.0e5}', None, 0), ("s", "x", None, "k", 3)]


async def test_an_enqueued_patch_is_delivered_at_once(tmp_path: Path) -> None:
    async with (
        sandboxed() as sandbox,
        delivering(tmp_path / "s.db", sandbox, watching=False) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):
        await asking.post("/enqueue", {"workflow_run_id": "r", "name": "n"})

        assert (await it.drained())["delivered"] == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: not valid JSON"),
        (b'{"workflow_run_id":".."}', "line 2: workflow_run_id must not be . or .."),
        (b'{"workflow_run_id":"r","nmae":"x"}', 'did you mean "name"?'),
        (b'{"workflow_run_id":"r","metadata":[]}', "metadata must be a JSON object"),
        (b'{"workflow_run_id":"r"}', "a patch needs a name or metadata"),
        (b"\xff", "line 2: "),
    ],
)
async def test_of_lines_with_a_bad_one_among_them_nothing_is_taken(
    asking: Asking, line: bytes, reason: str
) -> None:
    good = b'{"workflow_run_id":"r","name":"n"}\n'

    status, error = await asking.refused("POST", "/enqueue", good + line)

    assert status == 400
    assert reason in error
    assert states(asking.it.store.path) == {}


async def test_a_body_that_is_too_large_is_refused(asking: Asking) -> None:
    status, _ = await asking.refused("POST", "/enqueue", b" " * (MAX_BODY_BYTES + 1))

    assert status == 413


async def test_a_file_is_enqueued_in_chunks_as_one_batch(asking: Asking) -> None:
    batch = (await asking.post("/batches", {"name": "f.jsonl"}))["batch_id"]
    for n in range(3):
        await asking.post(f"/enqueue?batch_id={batch}", {"workflow_run_id": f"r{n}", "name": "n"})
    await asking.post(f"/batches/{batch}/close", {"rejected": 2})

    (row,) = await asking.get("/read/batches")
    assert (row["name"], row["source"], row["accepted"]) == ("f.jsonl", "enqueue", 3)
    assert row["closed_at"] is not None
    assert [row["batch"] for row in await asking.get("/read/patches?batch=f.jsonl")] == [
        *["f.jsonl"] * 3
    ]


async def test_a_database_that_is_locked_by_somebody_is_told_and_may_be_tried_again(
    asking: Asking,
) -> None:
    store = asking.it.store
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 20"))
    rude = sqlite3.connect(store.path, isolation_level=None)
    rude.execute("BEGIN IMMEDIATE")
    patch = {"workflow_run_id": "r", "name": "n"}

    status, error = await asking.refused("POST", "/enqueue", patch)
    rude.close()

    assert status == 503
    assert "locked by another process" in error
    assert f"fuser -v {store.path}" in error
    assert (await asking.post("/enqueue", patch))["accepted"] == 1


async def test_the_operators_verbs_do_what_they_say(asking: Asking) -> None:
    store = asking.it.store
    await fill(store, ("r", '{"a":1,"b":1}'), ("r", '{"a":2}'), ("s", '{"a":1}'), ("t", "{}"))
    await store.settle([dead("r", 1)])
    await store.settle([delivered("r", 2)])

    retried = await asking.post("/verbs/retry", {"ids": [1]})
    held = await asking.post("/verbs/hold", {"run": "s"})
    released = await asking.post("/verbs/release", {"all": True})
    discarded = await asking.post("/verbs/discard", {"run": "t"})

    assert retried == {
        "touched": 1,
        "in_flight": 0,
        "newer_in_flight": 0,
        "superseded": 0,
        "unclear": 0,
        "waiting": 0,
        "left_out": {"1": ["a"]},
        "stopped": None,
        "wanted": True,
        "asked": False,
        "asked_with": None,
        "daemon": {"state": "running", "reason": None, "probe": None},
    }
    assert [each["touched"] for each in (held, released, discarded)] == [1, 1, 1]
    assert states(store.path) == {1: "pending", 2: "delivered", 3: "pending", 4: "discarded"}


async def test_force_and_reason_are_heeded(asking: Asking) -> None:
    store = asking.it.store
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2}'))
    await store.settle([dead("r", 1, code="ODD")])
    await store.settle([delivered("r", 2)])

    assert (await asking.post("/verbs/retry", {"reason": "EVEN"}))["touched"] == 0
    forced = await asking.post("/verbs/retry", {"reason": "ODD", "force": True})
    assert (forced["touched"], forced["superseded"]) == (1, 0)


async def test_a_patch_in_flight_is_left_alone(tmp_path: Path) -> None:
    async with (
        sandboxed(faults="hang=1") as sandbox,
        delivering(tmp_path / "s.db", sandbox, timeout_s=0.5) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):
        await asking.post("/enqueue", {"workflow_run_id": "r", "name": "n"})
        await it.when(lambda: it.relay.in_flight)

        shown = await asking.get("/read/patches")
        discarded = await asking.post("/verbs/discard", {"all": True})
        await sandbox.change(faults="")
        await it.drained()

    assert [row["state"] for row in shown] == ["in_flight"]
    assert (discarded["touched"], discarded["in_flight"]) == (0, 1)


@asynccontextmanager
async def left_in_the_middle(asking: Asking, steps: int) -> AsyncIterator[None]:
    """The command of a verb on so many steps of patches has hung up; the block is in its second."""
    it = asking.it
    await it.store.accept([Patch("r", "n")] * (steps * STEP_PATCHES))
    verb = asyncio.create_task(asking.post("/verbs/hold", {"all": True}))
    await it.when(lambda: it.counters()["held"])
    async with it.relay.standing_still():
        verb.cancel()
        await asyncio.wait({verb})
        await asking.get("/status")  # what has come before is known by now
        yield


async def test_a_verb_whose_command_has_gone_ends_after_its_step(asking: Asking) -> None:
    with structlog.testing.capture_logs() as said:
        async with left_in_the_middle(asking, 4):
            pass
        await asking.it.when(lambda: said)

    assert said[0]["stopped"] == "its command has gone"
    assert said[0]["touched"] == asking.it.counters()["held"] <= 3 * STEP_PATCHES


async def test_no_verb_is_at_work_any_more_when_the_control_socket_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its step takes: whoever closes the store then takes it from nobody."""
    monkeypatch.setattr(control, "LEAVE_S", 0.001)
    async with sandboxed() as sandbox, delivering(tmp_path / "s.db", sandbox) as it:
        it.gate.pause()
        with structlog.testing.capture_logs() as said:
            async with (
                listening(tmp_path / "syncd.sock", it) as asking,
                left_in_the_middle(asking, 4),
            ):
                pass

        assert [line["event"] for line in said] == ["operator.verb"]
        assert it.counters()["held"] <= 3 * STEP_PATCHES


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("/verbs/explode", {}, 404),
        ("/verbs/stop", [], 400),
        ("/verbs/retry", [], 400),
        ("/verbs/retry", b"{", 400),
        ("/verbs/retry", {"ids": ["x"]}, 400),
        ("/verbs/retry", {"ids": 7}, 400),
        ("/verbs/retry", {"ids": [1 << 70]}, 400),
        ("/batches/x/close", {}, 400),
        ("/batches/1/close", {"refused": 7}, 400),
        ("/enqueue?batch_id=x", b"", 400),
        ("/nowhere", {}, 404),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_line(
    asking: Asking, what: str, body: object, status: int
) -> None:
    assert (await asking.refused("POST", what, body))[0] == status


async def test_a_selection_of_nothing_touches_nothing(asking: Asking) -> None:
    await fill(asking.it.store, ("r", "{}"))

    assert (await asking.post("/verbs/discard", {}))["touched"] == 0


async def test_a_retry_while_the_api_is_down_asks_it_at_once_with_what_is_meant(
    tmp_path: Path,
) -> None:
    """However far back it stands. It is one request a time, and the next probe goes when it would
    have gone."""
    async with (
        sandboxed(faults="503=1") as sandbox,
        delivering(tmp_path / "s.db", sandbox, in_flight=8, base_s=60.0, cap_s=240.0) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):

        async def stands(requests: int) -> list[str]:
            await it.when(lambda: it.relay.figures.requests >= requests and not it.relay.in_flight)
            return [request["run"] for request in await sandbox.requests()]

        await it.accept(*[Patch(f"r{number}", "n") for number in range(400)])
        await it.when(lambda: it.gate.down)
        down = len(await stands(5))
        due_at = time.monotonic() + (it.gate.figures().closed_for_s or 0.0)
        one = await asking.post("/verbs/retry", {"ids": [381, 351]})
        await stands(down + 1)
        everything = await asking.post("/verbs/retry", {"all": True})
        asked = await stands(down + 2)
        still_due_at = time.monotonic() + (it.gate.figures().closed_for_s or 0.0)
        nobody = await asking.post("/verbs/retry", {"ids": [999]})
        discarded = await asking.post("/verbs/discard", {"run": "r399"})
        await sandbox.change(faults="")
        run = await asking.post("/verbs/retry", {"run": "r370"})
        done = await it.drained()
        sent = await stands(down + 3)

    assert (one["touched"], one["waiting"]) == (1, 1), "the one that it is asked with is tried"
    assert (one["asked"], one["asked_with"]) == (True, "r350")
    assert (everything["asked"], everything["asked_with"]) == (True, None)
    assert [nobody["asked"], discarded["asked"]] == [False, False]
    assert (run["asked"], run["asked_with"]) == (True, "r370")
    assert (len(asked), asked[down], sent[down + 2]) == (down + 2, "r350", "r370")
    assert still_due_at == pytest.approx(due_at, abs=1.0)
    assert done["delivered"] == 399


async def test_a_probe_that_is_out_is_told_and_no_second_one_sent(tmp_path: Path) -> None:
    failing = Unavailable(Trouble(Blame.SERVER, "http_503", "m"))
    async with (
        sandboxed() as sandbox,
        delivering(tmp_path / "s.db", sandbox, base_s=60.0, cap_s=60.0) as it,
    ):
        spool = Spool(tmp_path, 1.0, 1)
        status = Status(it.store, it.gate, it.relay, spool, troubles=tuple, wall=time.time)
        for run in "abcab":
            await it.gate.enter()
            it.gate.leave(run, failing, probe=False)
        awaited = status.sending()
        it.gate.hurry()
        await it.gate.enter()
        await it.accept(Patch("r", "n"))
        async with listening(tmp_path / "syncd.sock", it, status.sending) as asking:
            retried = await asking.post("/verbs/retry", {"all": True})
        sent = await sandbox.requests()
        it.gate.leave("a", Refused(Trouble(Blame.PATCH, "c", "m")), probe=True)
        await it.relay.recall()
        await it.drained()
        back = status.sending()

    assert awaited.probe is Probe.AWAITED
    assert (retried["asked"], sent) == (False, [])
    assert retried["daemon"] == {
        "state": "waiting",
        "reason": "the API is failing; a probe is out",
        "probe": "out",
    }
    assert (back.state, back.probe) == ("running", None)


async def test_a_pause_outlives_the_daemon_and_so_does_its_end(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with (
        sandboxed() as sandbox,
        delivering(path, sandbox) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):
        assert await asking.post("/pause") == {"paused": True, "not_kept": None}
        assert it.gate.paused
    async with opened(path) as store:
        assert await store.read(lambda db: fact(db, PAUSED)) is not None
        assert (await store.read(lambda db: read.outbox(db, 0.0)))["paused"] is True
    async with (
        sandboxed() as sandbox,
        delivering(path, sandbox) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):
        assert await asking.post("/resume") == {"paused": False}
        assert not it.gate.paused
    async with opened(path) as store:
        assert await store.read(lambda db: fact(db, PAUSED)) is None


async def test_a_pause_beside_a_database_that_was_moved_says_that_no_start_knows_of_it(
    asking: Asking,
) -> None:
    """It holds at once, and over restarts too once what was moved is back."""
    path = asking.it.store.path
    asking.it.gate.resume()
    away = path.rename(path.with_name("moved.db"))
    paused = await asking.post("/pause")
    sending = not asking.it.gate.paused
    away.rename(path)

    assert not sending
    assert paused["paused"] is True
    assert paused["not_kept"].startswith(f"{path}: the database was moved or removed")
    assert rows(path, "SELECT count(*) FROM facts WHERE name = ?", PAUSED) == [(1,)]


async def test_while_paused_patches_are_taken_in_and_delivered_after(tmp_path: Path) -> None:
    async with (
        sandboxed() as sandbox,
        delivering(tmp_path / "s.db", sandbox) as it,
        listening(tmp_path / "syncd.sock", it) as asking,
    ):
        await asking.post("/pause")
        await asking.post("/enqueue", {"workflow_run_id": "r", "name": "n"})
        assert (await sandbox.stats())["requests"] == 0
        await asking.post("/resume")

        assert (await it.drained())["delivered"] == 1
