"""What must not get out does not: the token, and what is said to whom."""

import asyncio
import json
import os
import resource
import ssl
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hostile import answer, hostile, hostile_meanwhile, speaking_to
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import PATIENCE_S, Daemon, start_sandbox, syncd

from syncd.config import load
from syncd.core.answer import NoReply, Reply
from syncd.core.patch import Patch, check
from syncd.errors import ConfigError

SECRET = "tok_DO-NOT-SHOW_4f9c1e7a55"
RUN = b'{"object": "workflow_run", "id": "run"}'

EVERYTHING = ",".join(
    f"{fault}=0.05"
    for fault in (
        *("drop", "drop_after", "hang", "garbage", "slow", "false", "wrong_id", "zombie"),
        *("400", "401", "402", "404", "409", "422", "429", "500", "503"),
    )
)


# The token

IN_JSON = "".join(f"\\u{ord(one):04x}" for one in SECRET)
IN_ADDRESS = SECRET.replace("-", "%2D").replace("_", "%5F")
IN_BASE64 = b64encode(f"Bearer {SECRET}".encode()).decode().rstrip("=")
IN_UTF16 = SECRET.encode("utf-16-le")
ESCAPED = f'{{"code": "X{IN_JSON}", "message": "no {IN_JSON}", "requestId": "{IN_JSON}"}}'.encode()

# What is said to a request for the run of this name, by a vendor that repeats what it was sent.
ECHOES = {
    "status_line": f"{SECRET} 200 OK\r\n\r\n".encode(),
    "status": f"HTTP/1.1 {SECRET} OK\r\n\r\n".encode(),
    "no_header": f"HTTP/1.1 200 OK\r\n{SECRET}\r\n\r\n".encode(),
    "header": f"HTTP/1.1 200 OK\r\nAuthorization : Bearer {SECRET}\r\n\r\n".encode(),
    "control": f"HTTP/1.1 200 OK\r\nX-Echo: \0Bearer {SECRET}\r\n\r\n".encode(),
    "shortened": f"HTTP/1.1 200 OK\r\nX: {SECRET * 400}\r\n\r\n".encode(),
    "length": f"HTTP/1.1 200 OK\r\nContent-Length: {SECRET}\r\n\r\n".encode(),
    "chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n".encode(),
    "code": answer(ESCAPED, "503 Later", f"x-extend-request-id: {IN_ADDRESS}"),
    "dead": answer(ESCAPED, "400 Bad Request", f"x-extend-request-id: {IN_ADDRESS}"),
    "address": answer(IN_ADDRESS.encode(), "503 Later", f"Retry-After: {SECRET}"),
    "base64": answer(IN_BASE64.encode(), "400 Bad Request"),
    "utf16": answer(IN_UTF16, "400 Bad Request"),
    "cached": answer(
        b'{"object": "workflow_run", "id": "cached", "name": "%b"}' % IN_JSON.encode()
    ),
}
SHAPES = [
    # The half of it tells enough.
    *(shape[: len(shape) // 2].encode() for shape in (SECRET, IN_JSON, IN_ADDRESS)),
    *(IN_BASE64[10:40].encode(), IN_UTF16, json.dumps(IN_UTF16.decode())[1:-1].encode()),
]


async def echo_by_run(head: bytes, writer: asyncio.StreamWriter) -> None:
    """Say what belongs to the run that is asked for; to any other that it is well."""
    run = head.split(b" ")[1].rpartition(b"/")[2].decode()
    well = answer(f'{{"object": "workflow_run", "id": "{run}"}}'.encode())
    writer.write(ECHOES.get(run, well))
    if run in ECHOES and ECHOES[run].endswith(b"\r\n"):
        writer.close()  # what is not HTTP is not gone on with


def places(daemon: Daemon) -> dict[str, bytes]:
    """Everything that the daemon has written, shown or is shown by the system, by its place."""
    found = {
        str(path): path.read_bytes()
        for path in daemon.folder.rglob("*")
        if path.is_file() and path.name != "token"
    }
    for name in ("cmdline", "environ"):
        found[f"/proc/PID/{name}"] = Path(f"/proc/{daemon.pid}/{name}").read_bytes()
    for command in (
        *("status", "status --json", "list --json --limit 999", "batches", "check", "runs --json"),
        *("show cached --json", "why dead", "why utf16 --json", "why status_line"),
    ):
        told = daemon.syncd(*command.split())
        found[f"syncd {command}"] = (told.stdout + told.stderr).encode()
    return found


def answered(daemon: Daemon) -> set[str]:
    """The runs of which an answer is written down."""
    return {
        run
        for (run,) in daemon.rows(
            "SELECT workflow_run_id FROM lanes UNION SELECT workflow_run_id FROM outbox"
            " WHERE state IN ('dead', 'delivered')"
        )
    }


def test_the_token_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    """With every fault on, a reload, a restart after a kill, and at the most talkative level: not
    in a log line, the database, its log, the spool, a command, the command line or environment."""
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    with (
        start_sandbox(tmp_path, "--faults", EVERYTHING, "--seed", "3") as sandbox,
        hostile_meanwhile(echo_by_run) as url,
    ):
        sandbox.change(token=SECRET)
        daemon = Daemon(
            tmp_path,
            sandbox.url,
            api={"timeout_s": 0.3, "token_file": str(file)},
            retry={"base_s": 0.01, "cap_s": 0.05},
            log={"level": "debug"},
        )
        del daemon.environment["SYNCD_API__TOKEN"]
        with daemon.start():
            daemon.insert(*[(f"run_{n}", f"name {n}", '{"a": 1}') for n in range(150)])
            daemon.drop("a.jsonl", '{"workflow_run_id": "a", "name": "b"}\nno patch\n')
            deadline = time.monotonic() + PATIENCE_S
            while len(sandbox.stats()["faults"]) < 14:
                assert time.monotonic() < deadline, sandbox.stats()["faults"]
                time.sleep(0.1)
            daemon.kill()
            daemon.configure(
                url,
                api={"timeout_s": 5.0, "token_file": str(file)},
                retry={"base_s": 0.01, "cap_s": 0.05},
                log={"level": "debug"},
            )
            daemon.start()
            daemon.insert(*[(run, "name", None) for run in ECHOES])
            while unanswered := set(ECHOES) - answered(daemon):
                assert time.monotonic() < deadline, unanswered
                time.sleep(0.02)
            daemon.configure("http://192.0.2.1", api={"token_file": str(file)})
            os.kill(daemon.pid, 1)  # a reload that is refused
            while "daemon.reload_refused" not in daemon.log():
                assert time.monotonic() < deadline, daemon.log()
                time.sleep(0.02)
            seen = places(daemon)

            assert any(path.endswith("-wal") for path in seen)
            assert "relay.deferred" in daemon.log()
            assert b"no <token>" in seen["syncd list --json --limit 999"]
            assert b'"name":"<token>"' in seen["syncd show cached --json"].replace(b": ", b":")
            assert [(place, one) for place in seen for one in SHAPES if one in seen[place]] == []


def test_a_daemon_leaves_no_core(tmp_path: Path) -> None:
    """Wherever it was started from: its memory holds the token."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("nobody leaves a core here")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with start_sandbox(tmp_path) as sandbox, Daemon(tmp_path, sandbox.url).start() as daemon:
            limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]

    assert core.split()[4] == "0"


async def test_a_token_that_the_vendor_echoes_is_not_taken_in() -> None:
    """A proxy's error page may show the request's headers: that must reach neither the database nor
    a screen."""

    async def echo(head: bytes, writer: asyncio.StreamWriter) -> None:
        header = next(line for line in head.splitlines() if SECRET.encode() in line).decode()
        writer.write(answer(head, "400 Bad Request", f"x-extend-request-id: {header}"))

    async with hostile(echo) as url, speaking_to(url, token=SECRET) as api:
        reply = await api.update("run", b"{}")

    assert isinstance(reply, Reply)
    assert reply.status == 400
    assert SECRET not in repr(reply)


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_the_token_follows_no_redirect(status: str) -> None:
    heads: list[bytes] = []

    async def elsewhere(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(RUN))

    async with hostile(elsewhere) as other:

        async def redirect(head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(b"", f"{status} Moved", f"Location: {other}/run"))

        async with hostile(redirect) as url, speaking_to(url, token=SECRET) as api:
            reply = await api.update("run", b"{}")

    assert isinstance(reply, NoReply)
    assert (reply.cause, heads) == ("redirect", [])


def test_the_token_goes_unencrypted_to_nobody_but_this_machine(tmp_path: Path) -> None:
    def load_with(url: str) -> str:
        file = tmp_path / "syncd.toml"
        file.write_text(f'[api]\nbase_url = "{url}"\n')
        return load(str(file), {}).api.url

    for url in (
        "http://api.extend.ai",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "ftp://x",
    ):
        with pytest.raises(ConfigError, match="https://"):
            load_with(url)

    assert load_with("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert load_with("https://proxy.example/extend") == "https://proxy.example/extend"


# Who it speaks to


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For localhost; its key is in the file `key` beside it."""
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(folder / "key"), "-out", str(folder / "certificate")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"openssl makes no certificate here: {made.stderr[-200:]}")
    return folder / "certificate"


@pytest.fixture(scope="module")
def self_signed(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))
    return context


async def test_a_self_signed_certificate_is_refused(self_signed: ssl.SSLContext) -> None:
    """Not one byte of a request is sent."""
    heads: list[bytes] = []

    async def listen(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(RUN))

    async with hostile(listen, tls=self_signed) as url, speaking_to(url) as api:
        reply = await api.update("run", b"{}")

    assert isinstance(reply, NoReply)
    assert (reply.cause, reply.ambiguous, heads) == ("tls", False, [])


async def test_a_certificate_that_is_trusted_holds_for_its_host_alone(
    certificate: Path, self_signed: ssl.SSLContext, tmp_path: Path
) -> None:
    heads: list[bytes] = []

    async def listen(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(RUN))

    def checked(url: str) -> str:
        settings = {
            "SSL_CERT_FILE": str(certificate),
            "SYNCD_API__TOKEN": "t",
            "SYNCD_API__BASE_URL": url,
        }
        found = syncd("check", "--online", folder=tmp_path, **settings)
        return next(line for line in found.stdout.splitlines() if " API " in line)

    async with hostile(listen, tls=self_signed) as url:
        of_another = await asyncio.to_thread(checked, url.replace("localhost", "127.0.0.1"))
        assert heads == []
        its_own = await asyncio.to_thread(checked, url)

    assert of_another.startswith("FAIL")
    assert "tls" in of_another
    assert len(heads) == 1, its_own


NASTY = [
    *("a\r\nX-Evil: 1", "a b", "../../admin", "..%2f..%2fadmin", "%2e%2e", "a/b?c=d#e", "\\..\\"),
    *("ünï☃𝄞", "\u202egnp", "a;b=c", "%00", "\x00", "?", "#", "//host/", "a%0d%0aX: 1", "*"),
]


@pytest.mark.parametrize("run", NASTY)
async def test_an_id_is_one_segment_of_the_path_whatever_it_holds(run: str) -> None:
    await _one_segment([run])


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(min_size=1, max_size=255), max_size=30))
async def test_any_id_that_a_patch_may_have_is_one_segment(runs: list[str]) -> None:
    await _one_segment([run for run in runs if check(Patch(run, "name")) is None])


async def _one_segment(runs: list[str]) -> None:
    heads: list[bytes] = []

    async def listen(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(RUN))

    async with hostile(listen) as url, speaking_to(f"{url}/v1") as api:
        for run in runs:
            await api.update(run, b"{}")

    for run, head in zip(runs, heads, strict=True):
        method, path, version = head.splitlines()[0].split(b" ")
        assert (method, version) == (b"POST", b"HTTP/1.1")
        assert path.startswith(b"/v1/workflow_runs/")
        segment = path.removeprefix(b"/v1/workflow_runs/")
        assert not set(segment) & set(b"/?#\\ \t")
        assert unquote_to_bytes(segment) == run.encode()
        assert b"x-evil" not in head.lower().replace(b"%", b"")[len(path) + 20 :]
