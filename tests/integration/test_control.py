"""The control socket, over a real unix socket: who may connect, and the status behind it."""

import asyncio
import os
import resource
import socket
import sqlite3
import stat
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from asking import Asking, listening, sending
from delivering import Delivering, delivering
from processes import start_daemon, start_sandbox
from sandboxed import sandboxed
from stores import insert

from syncd import upkeep
from syncd.control import Control
from syncd.core.patch import Patch
from syncd.errors import SyncdError
from syncd.spool import Spool
from syncd.status import Status
from syncd.store import StoreBusy


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


async def nothing() -> dict[str, Any]:
    return {}


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


@pytest.mark.parametrize("leads", [None, "nowhere"], ids=["file", "link"])
async def test_what_is_no_socket_is_named_until_it_is_moved_away(
    asking: Asking, leads: str | None
) -> None:
    asking.path.unlink()
    asking.path.touch() if leads is None else asking.path.symlink_to(leads)
    with pytest.raises(SyncdError, match=r"syncd\.sock: not a socket: move it away"):
        await asking.listener.go_on()
    told = asking.listener.trouble
    asking.path.unlink()

    assert told == f"no command can get here: {asking.path} is not a socket: move it away"
    assert await asking.listener.go_on() is True


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
