"""The control socket, over a real unix socket: who may connect, and what can be asked."""

import asyncio
import io
import json
import os
import resource
import socket
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from delivering import Delivering, delivering
from processes import start_daemon, start_sandbox
from sandboxed import sandboxed
from stores import dead, delivered, fill, insert, opened, rows, states

from syncd import control, readers, upkeep
from syncd.control import MAX_BODY_BYTES, Control
from syncd.core.breaker import Probe
from syncd.core.outcome import Blame, Refused, Trouble, Unavailable
from syncd.core.patch import Patch
from syncd.core.sending import Sending
from syncd.errors import SyncdError
from syncd.listener import Listener
from syncd.spool import Spool
from syncd.status import Status
from syncd.store import StoreBusy, read
from syncd.store.facts import PAUSED, fact
from syncd.store.store import STEP_PATCHES


@dataclass(slots=True)
class Asking:
    """A client on the control socket, and what is behind it."""

    it: Delivering
    path: Path
    session: aiohttp.ClientSession
    listener: Listener

    async def ask(self, method: str, what: str, body: object = None) -> tuple[int, Any]:
        """The status and the decoded answer: an object, or the list of lines."""
        if body is not None:
            body = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(method, f"http://syncd{what}", data=body) as reply:
            text = await reply.text()
            if reply.content_type == "application/x-ndjson":
                return reply.status, [json.loads(line) for line in text.splitlines()]
            return reply.status, json.loads(text)

    async def get(self, what: str) -> Any:
        status, answer = await self.ask("GET", what)
        assert status == 200, answer
        return answer

    async def post(self, what: str, body: object = None) -> Any:
        status, answer = await self.ask("POST", what, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, what: str, body: object = None) -> tuple[int, str]:
        status, answer = await self.ask(method, what, body)
        assert answer.keys() == {"error"}
        assert "\n" not in answer["error"]
        return status, answer["error"]


async def nothing() -> dict[str, Any]:
    return {}


def sending() -> Sending:
    return Sending("running", requests_per_s=8.0)


@asynccontextmanager
async def listening(
    path: Path, it: Delivering, sending: Callable[[], Sending] = sending
) -> AsyncIterator[Asking]:
    """A control socket for the length of the block."""

    async def status() -> dict[str, Any]:
        return {"asked": "and answered"}

    async with AsyncExitStack() as stack:
        here = Control(it.store, it.relay, it.gate, status, sending)
        await here.listen(path, stack)
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Asking(it, path, session, here.listener)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    """The control socket of a daemon whose gate is closed by an operator."""
    async with sandboxed() as sandbox, delivering(tmp_path / "s.db", sandbox) as it:
        it.gate.pause()
        async with listening(tmp_path / "run" / "syncd.sock", it) as asking:
            yield asking


# The socket


async def test_only_the_owner_and_the_group_may_connect(asking: Asking) -> None:
    mode = asking.path.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert stat.S_IMODE(asking.path.parent.stat().st_mode) & stat.S_IRWXO == 0


async def test_the_umask_is_as_it_was(asking: Asking) -> None:
    before = os.umask(0o022)
    os.umask(before)

    assert before != 0o117


async def test_the_socket_goes_when_the_daemon_does(tmp_path: Path) -> None:
    path = tmp_path / "syncd.sock"
    async with sandboxed() as sandbox, delivering(tmp_path / "s.db", sandbox) as it:
        async with listening(path, it) as asking:
            await asking.get("/status")

        assert not path.exists()


async def test_a_socket_that_a_killed_daemon_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "syncd.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with (
        sandboxed() as sandbox,
        delivering(tmp_path / "s.db", sandbox) as it,
        listening(path, it) as asking,
    ):
        assert await asking.get("/status") == {"asked": "and answered"}


async def refusal(path: Path, it: Delivering) -> str:
    """The one line that a daemon says which cannot listen there."""
    async with AsyncExitStack() as stack:
        with pytest.raises(SyncdError) as refused:
            await Control(it.store, it.relay, it.gate, nothing, sending).listen(path, stack)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    assert "None" not in str(refused.value)
    return str(refused.value)


async def test_a_socket_that_another_daemon_listens_on_is_left_alone(asking: Asking) -> None:
    assert "another daemon listens here" in await refusal(asking.path, asking.it)
    assert await asking.get("/status") == {"asked": "and answered"}


async def test_a_socket_that_was_removed_is_made_anew(asking: Asking) -> None:
    """Its folder too; and what had connected before goes on."""
    asking.path.unlink()
    asking.path.parent.rmdir()
    assert "was removed" in (asking.listener.trouble or "")

    again = await asking.listener.go_on(), await asking.listener.go_on()

    assert again == (True, False)
    assert asking.listener.trouble is None
    assert stat.S_IMODE(asking.path.stat().st_mode) == 0o660
    assert await asking.get("/status") == {"asked": "and answered"}
    with socket.socket(socket.AF_UNIX) as newcomer:
        newcomer.connect(str(asking.path))


async def test_a_socket_in_the_place_of_one_that_was_removed_stays_while_it_answers(
    asking: Asking,
) -> None:
    """It is not ours, also when the daemon ends; one that nobody listens on is no one's."""
    asking.path.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(asking.path))
        another.listen()

        with pytest.raises(SyncdError, match="another daemon listens here"):
            await asking.listener.go_on()
        assert "is another process's" in (asking.listener.trouble or "")
        asking.listener.end()

        with socket.socket(socket.AF_UNIX) as newcomer:
            newcomer.connect(str(asking.path))
    assert await asking.listener.go_on() is True
    assert asking.listener.trouble is None


async def test_without_descriptors_it_is_made_anew_later(asking: Asking) -> None:
    asking.path.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with pytest.raises(SyncdError, match=r"syncd\.sock: .*: check control\.socket"):
            await asking.listener.go_on()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert await asking.listener.go_on() is True
    assert await asking.get("/status") == {"asked": "and answered"}


async def test_where_no_socket_can_be_made_anew_that_is_one_line(asking: Asking) -> None:
    asking.path.unlink()
    asking.path.parent.rmdir()
    asking.path.parent.touch()

    with pytest.raises(SyncdError, match=r"syncd\.sock: .*: check control\.socket"):
        await asking.listener.go_on()


async def test_a_file_that_is_no_socket_is_left_alone(asking: Asking, tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("keep me")

    assert "not a socket" in await refusal(path, asking.it)
    assert path.read_text() == "keep me"


async def test_a_path_that_no_socket_can_have_is_one_line(asking: Asking, tmp_path: Path) -> None:
    assert "check control.socket" in await refusal(tmp_path / ("x" * 120), asking.it)
    (tmp_path / "file").touch()
    assert "check control.socket" in await refusal(tmp_path / "file" / "s.sock", asking.it)


# Status


def test_the_status_of_a_daemon_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    with start_sandbox(tmp_path) as sandbox, start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.insert(("r", "n", None))
        status = asyncio.run(_status_of(daemon.socket))

    assert status.keys() >= {
        *("daemon", "outbox", "snapshots", "gate", "throughput", "eta_s", "spool", "last_error"),
    }
    assert status["daemon"].keys() >= {
        *("running", "state", "reason", "pid", "version", "started_at"),
    }
    assert status["daemon"]["running"] is True
    assert status["daemon"]["pid"] == daemon.pid
    assert status["daemon"]["started_at"].endswith("Z")
    assert status["outbox"].keys() >= {
        *("pending", "deferred", "in_flight", "held", "dead", "delivered", "discarded"),
        "oldest_pending_s",
    }
    assert status["gate"].keys() >= {
        *("limit_per_s", "rate_per_s", "max_in_flight", "window", "closed_until", "breaker"),
    }
    assert status["throughput"].keys() >= {"delivered_per_s_1m", "requests_per_s_1m"}
    assert status["spool"].keys() >= {"waiting", "rejected"}
    assert status["snapshots"].keys() >= {"count"}


async def _status_of(path: Path) -> dict[str, Any]:
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://syncd/status") as reply,
    ):
        status: dict[str, Any] = await reply.json()
        return status


# Enqueue


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


# Verbs


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
    """However far back it stands. It is one request a time, and the next wait is no shorter."""
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
        one = await asking.post("/verbs/retry", {"ids": [381, 351]})
        await stands(down + 1)
        everything = await asking.post("/verbs/retry", {"all": True})
        asked = await stands(down + 2)
        trips, closed_for_s = it.gate.trips, it.gate.figures().closed_for_s
        nobody = await asking.post("/verbs/retry", {"ids": [999]})
        discarded = await asking.post("/verbs/discard", {"run": "r399"})
        await sandbox.change(faults="")
        run = await asking.post("/verbs/retry", {"run": "r370"})
        done = await it.drained()
        sent = await stands(down + 3)

    assert (one["touched"], one["waiting"]) == (0, 2)
    assert (one["asked"], one["asked_with"]) == (True, "r350")
    assert (everything["asked"], everything["asked_with"]) == (True, None)
    assert [nobody["asked"], discarded["asked"]] == [False, False]
    assert (run["asked"], run["asked_with"]) == (True, "r370")
    assert (len(asked), asked[down], sent[down + 2]) == (down + 2, "r350", "r370")
    assert trips == 3
    assert closed_for_s is not None
    assert closed_for_s > 100
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


class TakenIn(Spool):
    """A spool whose file is taken in at the moment at which somebody counts."""

    def waiting(self) -> int:
        insert(self.path.parent / "s.db", ("r", "x", None))
        (self.incoming / "a.jsonl").unlink()
        return super().waiting()


async def test_a_file_that_is_taken_in_while_status_looks_is_not_overlooked(tmp_path: Path) -> None:
    """It waits in the spool or in the outbox: `wait --all` goes by that."""
    spool = TakenIn(tmp_path / "spool", 1.0, 1)
    spool.prepare()
    (spool.incoming / "a.jsonl").write_text("")
    async with (
        sandboxed() as sandbox,
        delivering(tmp_path / "s.db", sandbox) as it,
    ):
        it.gate.pause()
        found = await Status(it.store, it.gate, it.relay, spool, troubles=tuple, wall=time.time)()

    assert (found["spool"]["waiting"], found["outbox"]["pending"]) == (0, 1)


# Pause


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


# Reading


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


@pytest.mark.parametrize("known", [False, True])
async def test_status_tells_of_a_lock_while_it_lasts_though_nobody_wants_to_write(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Once: a part that has told of it already is not repeated."""
    it, store = asking.it, asking.it.store
    monkeypatch.setattr(upkeep, "ABANDONED_EVERY_S", 0.01)
    monkeypatch.setattr(upkeep, "AGAIN_S", 0.01)
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 20"))

    def others() -> list[str]:
        return [f"the spool waits: {store.trouble}"] if known and store.trouble else []

    spool = Spool(store.path.with_name("spool"), 1.0, 1)
    status = Status(store, it.gate, it.relay, spool, troubles=others, wall=store.now)

    async def troubles(*, there: bool) -> list[str]:
        async with asyncio.timeout(5.0):
            while bool(found := (await status())["troubles"]) is not there:
                pass
        return found

    before = await troubles(there=False)
    keeping = asyncio.create_task(upkeep.close_abandoned(store, set))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as rude:
        rude.execute("BEGIN IMMEDIATE")
        (told,) = await troubles(there=True)
    after = await troubles(there=False)
    keeping.cancel()
    await asyncio.wait({keeping})

    assert before == after == []
    assert told.startswith("the spool waits: " if known else "nothing can be written down: ")
    assert f"{store.path}: locked by another process" in told


async def test_status_tells_of_a_lock_no_longer_than_it_lasts(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has met it: then it is soon found out that it is over."""
    store = asking.it.store
    monkeypatch.setattr(upkeep, "ABANDONED_EVERY_S", 3600.0)
    monkeypatch.setattr(upkeep, "AGAIN_S", 0.01)
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 20"))
    keeping = asyncio.create_task(upkeep.close_abandoned(store, set))
    await asyncio.sleep(0)
    await store.accept([Patch("r", "n")])  # after what upkeep has begun with
    with closing(sqlite3.connect(store.path, isolation_level=None)) as rude:
        rude.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await store.accept([Patch("r", "n")])
        met = store.trouble
    async with asyncio.timeout(5.0):
        while store.trouble is not None:  # noqa: ASYNC110  a fact, no event
            await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.wait({keeping})

    assert met is not None
