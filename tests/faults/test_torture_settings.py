"""Settings and the control socket against texts made to break parsers."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from processes import TOKEN, Daemon, start_sandbox
from torture import SHAPES, damage, damaged, filled, nested

from syncd import config
from syncd.cli.wire import Wire
from syncd.errors import ConfigError


def in_lines(error: ConfigError) -> None:
    assert error.errors
    assert not any("\n" in line for line in error.errors)


# Settings

PLACE = tempfile.TemporaryDirectory(prefix="syncd-torture-", ignore_cleanup_errors=True)


@given(
    st.dictionaries(
        st.sampled_from(["api", "delivery", "retry", "store", "spool", "control", "log", "x"]),
        st.dictionaries(
            st.sampled_from(
                ["rate_per_s", "base_url", "token_file", "metrics", "level", "path", "y"]
            ),
            nested,
            max_size=4,
        )
        | nested,
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(
            ["SYNCD_API__BASE_URL", "SYNCD_RETRY__CAP_S", "SYNCD_X__Y", "SYNCD_CONFIG"]
        ),
        st.text(),
    ),
)
def test_any_configuration_is_taken_or_refused_in_lines(mapping: dict, environ: dict) -> None:
    try:
        config.read.parse(mapping, {"HOME": "/", **environ}, "syncd.toml")
    except ConfigError as error:
        in_lines(error)


@given(st.binary(max_size=200), damage)
def test_any_bytes_as_a_configuration_file(raw: bytes, changes: list) -> None:
    place = Path(PLACE.name) / "syncd.toml"
    sample = b'[api]\nbase_url = "https://x"\ntimeout_s = 1.5\n[log]\nlevel = "info"\n'
    for text in (raw, damaged(sample, changes)):
        place.write_bytes(text)
        try:
            config.load(str(place), {"HOME": "/"})
        except ConfigError as error:
            in_lines(error)


# The control socket


def test_no_request_on_the_socket_is_a_mistake_of_ours(tmp_path: Path) -> None:
    """Answers are 4xx for what is not understood; never a traceback, and it goes on."""
    with start_sandbox(tmp_path) as sandbox, Daemon(tmp_path, sandbox.url).start() as daemon:
        wire = Wire(daemon.socket)
        assert wire.answers()
        for body in filled(
            (b"%s", b'{"name":%s}', b'{"ids":[%s]}', b'{"ids":%s,"run":%s}', SHAPES[0])
        ):
            for target in ("/enqueue", "/batches", "/verbs/hold", "/enqueue?batch_id=99"):
                asked(daemon, "POST", target, body)
        for query in (
            "limit=x",
            "limit=-1",
            "limit=99999999999999999999",
            "id=",
            "id=1e3",
            "batch=%ff",
        ):
            for what in ("patches", "patch", "snapshot", "runs", "batches", "nothing"):
                asked(daemon, "GET", f"/read/{what}?{query}", b"")
        for target in (
            "/batches/x/close",
            "/batches/99999999999999999999/close",
            "/verbs/eat",
            "/%00",
        ):
            asked(daemon, "POST", target, b"{}")

        assert daemon.status()["daemon"]["running"]
        assert "control.failed" not in daemon.log()
        assert TOKEN not in daemon.log()


def asked(daemon: Daemon, method: str, target: str, body: bytes) -> None:
    """One request over the socket; whatever it is, it is answered, and not by 500."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(daemon.socket))
    try:
        connection.request(method, target, body)
        reply = connection.getresponse()
        text = reply.read()
        assert reply.status != 500, (method, target, body[:80], text)
    finally:
        connection.close()
