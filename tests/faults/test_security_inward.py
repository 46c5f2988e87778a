"""What must not get in does not: answers without measure, files, strangers, SQL."""

import asyncio
import gzip
import os
import resource
import socket
import stat
import time
from pathlib import Path

import pytest
from hostile import answer, hostile, speaking_to
from processes import PATIENCE_S, Daemon, start_sandbox

from syncd.core.answer import NoReply
from syncd.core.patch import Patch
from syncd.store import Selection, Store, read

# What it listens to


async def test_a_gigabyte_is_not_read_to_its_end() -> None:
    async def flood(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        for _ in range(1024):
            writer.write(bytes(1 << 20))
            await writer.drain()

    reply, grown = await _listening_to(flood)

    assert isinstance(reply, NoReply)
    assert reply.cause == "too_large"
    assert grown < 100 << 20


async def test_a_gigabyte_in_a_megabyte_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(1 << 28), 9)

    async def unpack(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(bomb, "200 OK", "Content-Encoding: gzip"))

    reply, grown = await _listening_to(unpack)

    assert isinstance(reply, NoReply)
    assert grown < 150 << 20


async def test_one_byte_a_while_is_not_waited_for() -> None:
    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    began = time.monotonic()
    reply, _ = await _listening_to(drip, timeout_s=0.5)

    assert isinstance(reply, NoReply)
    assert (reply.cause, reply.ambiguous) == ("timeout", True)
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: " + bytes(65) * 4096 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n" + b"X-A: 1\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 99999999999 OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 \xff\xfe\r\nx-extend-request-id: \xff\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda raw: raw[:40].decode(errors="replace"),
)
async def test_what_is_not_quite_http_is_a_value_and_no_exception(raw: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    reply, _ = await _listening_to(say, timeout_s=2.0)

    assert isinstance(reply, NoReply) or reply.body == b""


async def _listening_to(answering, timeout_s: float = 20.0):  # type: ignore[no-untyped-def]
    before = _peak()
    async with hostile(answering) as url, speaking_to(url, timeout_s=timeout_s) as api:
        reply = await api.update("run", b"{}")
    return reply, _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# Who gets in


def test_what_is_no_plain_file_is_neither_read_nor_followed(tmp_path: Path) -> None:
    """Links to a secret, a FIFO, a device and a second name of a file, beside an honest file."""
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"workflow_run_id": "stolen", "name": "stolen"}\n')
    with start_sandbox(tmp_path) as sandbox, Daemon(tmp_path, sandbox.url).start() as daemon:
        incoming, rejected = daemon.spool / "incoming", daemon.spool / "rejected"
        (incoming / "link.jsonl").symlink_to(secret)
        (incoming / "folder.jsonl").symlink_to(tmp_path)
        os.link(secret, incoming / "hard.jsonl")
        os.mkfifo(incoming / "fifo.jsonl")
        expected = {"link.jsonl", "folder.jsonl", "hard.jsonl", "fifo.jsonl"}
        if os.geteuid() == 0:
            os.mknod(incoming / "device.jsonl", stat.S_IFCHR | 0o600, os.makedev(1, 5))
            expected.add("device.jsonl")
        daemon.drop("honest.jsonl", '{"workflow_run_id": "run", "name": "name"}\n')
        deadline = time.monotonic() + PATIENCE_S
        while os.listdir(incoming):
            assert time.monotonic() < deadline, os.listdir(incoming)
            time.sleep(0.02)
        waited = daemon.syncd("wait", "--batch", "honest.jsonl", "--timeout", "10")

        assert waited.returncode == 0
        assert {name for name in os.listdir(rejected) if not name.endswith(".txt")} == expected
        assert daemon.rows("SELECT workflow_run_id FROM outbox") == [("run",)]
        assert secret.read_text().startswith('{"workflow_run_id": "stolen"')
        reasons = b"".join(path.read_bytes() for path in rejected.glob("*.reason.txt"))
        assert reasons.count(b"\n") == len(expected)
        assert b"stolen" not in reasons


def test_strangers_cannot_open_what_is_ours(tmp_path: Path) -> None:
    """Neither the socket nor the database, even where they may enter the folder."""
    tmp_path.chmod(0o755)
    with start_sandbox(tmp_path) as sandbox, Daemon(tmp_path, sandbox.url).start() as daemon:
        folder = daemon.socket.parent
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (folder, daemon.socket, daemon.database, daemon.spool / "incoming")
        }
        assert modes["syncd"] == 0o700
        assert modes["syncd.sock"] & stat.S_IRWXO == 0
        assert modes["syncd.db"] == 0o600
        assert modes["incoming"] & stat.S_IRWXO == 0
        if os.geteuid() != 0:
            pytest.skip("becoming a stranger needs root; the modes are right")
        for path in (tmp_path, *tmp_path.parents, folder, folder.parent):
            if path.stat().st_uid == 0 and path.is_relative_to("/tmp/pytest-of-root"):
                path.chmod(0o755)

        assert _as_stranger(lambda: socket.socket(socket.AF_UNIX).connect(str(daemon.socket)))
        assert _as_stranger(daemon.database.read_bytes)
        assert _as_stranger(lambda: (daemon.spool / "incoming" / "x").write_text("x"))


def _as_stranger(attempt) -> bool:  # type: ignore[no-untyped-def]
    """Whether somebody else is told that he may not."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            attempt()
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


HOSTILE_SQL = ["x' OR 1=1 --", '"; DROP TABLE outbox; --', "%", "_", "x'||(SELECT 1)||'"]


async def test_what_looks_like_sql_is_a_value(tmp_path: Path) -> None:
    """In ids, names, keys, batches, reasons and searches: it selects nothing that is not so."""
    store = await Store.open(tmp_path / "syncd.db", time.time)
    await store.accept([Patch("run", "name", '{"k": 1}')])

    for text in HOSTILE_SQL:
        verbs = ("hold", "discard", "retry", "release")
        for verb in verbs:
            for selection in (Selection(run=text), Selection(reason=text)):
                assert (await store.operate(verb, selection, in_flight=())).touched == 0
        assert await store.read(lambda db, t=text: list(read.patches(db, 0.0, run=t))) == []
        assert await store.read(lambda db, t=text: list(read.patches(db, 0.0, batch=t))) == []
        assert await store.read(lambda db, t=text: list(read.runs(db, where=[(t, t)]))) == []
        assert await store.read(lambda db, t=text: list(read.runs(db, status=t))) == []
        assert await store.lane(text) is None
        place = await store.open_batch(text, "spool")
        taken = await store.accept([Patch(text, text, None, text)], place)
        assert taken.accepted == 1
    found = await store.read(
        lambda db: db.execute("SELECT workflow_run_id, name, state FROM outbox").fetchall()
    )
    await store.close()

    assert found == [
        ("run", "name", "pending"),
        *((text, text, "pending") for text in HOSTILE_SQL),
    ]
