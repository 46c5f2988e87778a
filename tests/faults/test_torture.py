"""Every parser against texts made to break parsers; numbers arrive as they were written."""

import csv
import io
import json
import string
import tempfile
from pathlib import Path

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import TOKEN, Daemon, start_sandbox
from stage import Vendor, on_stage, virtually

from syncd import config
from syncd.cli.wire import Wire
from syncd.core.answer import Reply, error_in, run_in
from syncd.core.fold import Waiting, fold
from syncd.core.mend import mended
from syncd.core.outcome import Blame, Confirmed, Refused, Trouble, classify, instant, retry_after_s
from syncd.core.patch import Invalid, Patch, check, fit, parse
from syncd.errors import ConfigError
from syncd.formats import Format, Kind, Unreadable, read

# Ideas of the public JSON torture suites: what is no JSON, what is but need not be taken, and what
# must be. Each stands where a value stands.
VALUES: tuple[bytes, ...] = (
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"+1", b"01", b"-01", b".5", b"5.", b"1.e5"),
    *(b"0x10", b"1_000", b"1e", b"1e+", b"--1", b"-", b"\xef\xbc\x91", b"1 000", b"0e1", b"-0"),
    *(
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"1E400",
        b"9" * 5000,
        b"-" + b"9" * 5000,
        b"0." + b"1" * 5000,
    ),
    *(b"123456789012345678901234567890", b"0.1000000000000000055511151231257827", b"1.0", b"1E2"),
    *(b"18446744073709551616", b"-9223372036854775809", b"9007199254740993", b"1e0000001"),
    *(
        b"[" * 600 + b"]" * 600,
        b"[" * 100_000,
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"a":' * 50_000,
    ),
    *(
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\xc0\x80"',
    ),
    *(
        b'"\x00"',
        b'"\\u0000"',
        b'"\t"',
        b'"\n"',
        b'"\x7f"',
        b'"\\x41"',
        b'"\\a"',
        b'"\\u12"',
        b'"\\',
    ),
    *(
        b"'a'",
        b'"a',
        b"a",
        b"True",
        b"tru",
        b"nul",
        b"null\x00",
        b"undefined",
        b"//c\n1",
        b"/*c*/1",
    ),
    *(
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1,,2]",
        b"{1:2}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{,}",
        b"]",
    ),
    *(
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":{}}}',
        b'{"":1}',
        b'{"\\u0061":1,"a":2}',
        b'{"__proto__":1}',
    ),
    *(
        b"\xef\xbb\xbf1",
        b"\x0b1",
        b"\xa01",
        b"\xe2\x80\xa81",
        b"\x0c1",
        b"1\x00",
        b"",
        b"#",
        b"<a/>",
    ),
    *(b'"\xe2\x80\xa8"', b'"\xf4\x90\x80\x80"', b'"\xf0\x9f\x98\x80"', b'"\\ufffe"', b'"\\uFDD0"'),
)
SHAPES: tuple[bytes, ...] = (
    b'{"workflow_run_id":"r","metadata":{"k":%s}}',
    b'{"workflow_run_id":"r","metadata":%s}',
    b'{"workflow_run_id":"r","name":%s}',
    b'{"workflow_run_id":%s,"name":"n"}',
    b'{"workflow_run_id":"r","name":"n","priority":%s}',
    b'{"workflow_run_id":"r","name":"n","idempotency_key":%s}',
    b"%s",
)
ANSWERS: tuple[bytes, ...] = (
    b'{"object":"workflow_run","id":"r","metadata":%s}',
    b'{"object":"workflow_run","id":"r","status":%s}',
    b'{"object":"workflow_run","id":%s}',
    b'{"success":true,"workflowRun":%s}',
    b'{"success":%s,"workflowRun":{"object":"workflow_run","id":"r"}}',
    b'{"code":%s,"message":"m","retryable":false}',
    b'{"error":{"code":"c","message":%s,"retryable":%s}}',
    b'{"error":%s}',
    b"%s",
)


def filled(shapes: tuple[bytes, ...]) -> list[bytes]:
    made = [shape.replace(b"%s", value) for shape in shapes for value in VALUES]
    some = made[:: len(made) // 60]
    return [
        *made,
        *(b"\xef\xbb\xbf" + text for text in some),
        *(text + b"x" for text in some),
        *(text.decode("utf-8", "replace").encode(kind) for text in some for kind in UTFS),
    ]


UTFS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7")


def in_a_line(error: Exception) -> None:
    """It is what a person is told."""
    assert str(error)
    assert "\n" not in str(error)


def in_lines(error: ConfigError) -> None:
    assert error.errors
    assert not any("\n" in line for line in error.errors)


# Patches


def taken_or_refused(raw: bytes) -> None:
    """It is a patch that means what the text says, or is refused with one line."""
    found = parse(raw)
    if isinstance(found, Invalid):
        assert found.reason
        assert "\n" not in found.reason
        return
    assert check(found) is None
    assert fit(found) == found
    text = orjson.loads(raw)  # strict: whatever is taken, is JSON
    assert text["workflow_run_id"] == found.workflow_run_id
    request = fold([Waiting(1, found.name, found.metadata)])
    sent = orjson.loads(request.body)
    assert sent.get("metadata") == text.get("metadata")
    assert sent.get("name") == text.get("name")


def test_a_patch_is_what_its_text_says_or_is_refused() -> None:
    for raw in filled(SHAPES):
        taken_or_refused(raw)


nested = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
patches = st.fixed_dictionaries(
    {"workflow_run_id": st.text(max_size=300)},
    optional={
        "name": st.text() | nested,
        "metadata": st.dictionaries(st.text(max_size=9), nested, max_size=5) | nested,
        "idempotency_key": st.text(max_size=300) | nested,
        "priority": st.integers() | nested,
    },
)
damage = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=3)


def damaged(text: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """The text with bytes replaced here and there."""
    for at, new in changes:
        where = at % (len(text) + 1)
        text = text[:where] + new + text[where + 1 :]
    return text


@given(patches, damage, st.booleans())
def test_a_patch_with_a_few_wrong_bytes_too(patch: object, changes: list, plain: bool) -> None:
    taken_or_refused(
        damaged(json.dumps(patch, ensure_ascii=plain).encode("utf-8", "replace"), changes)
    )


# Files


@pytest.mark.parametrize("kind", list(Kind))
def test_a_file_of_torture_gives_patches_and_reasons(kind: Kind) -> None:
    """One bad line, element or cell never costs another; what is no such file is Unreadable."""
    for value in VALUES:
        good = b'{"workflow_run_id":"r","name":"n"}'
        bad = SHAPES[0].replace(b"%s", value)
        match kind:
            case Kind.JSONL:
                text = b"\n".join([good, bad, good, b""])
            case Kind.JSON:
                text = b"[" + b",\n".join([good, bad, good]) + b"]"
            case Kind.CSV:
                cells = io.StringIO()
                wild = value.decode("utf-8", "surrogateescape")
                csv.writer(cells).writerows(
                    [
                        ["workflow_run_id", "name", "metadata:json.k"],
                        *(["r", "n", ""], ["r", "n", wild], ["r", "n", ""]),
                    ]
                )
                text = cells.getvalue().encode("utf-8", "surrogateescape")
        try:
            chunks = list(read(io.BytesIO(text), Format(kind)))
        except Unreadable as unreadable:
            assert kind is not Kind.JSONL
            in_a_line(unreadable)
            continue
        found = [patch for chunk in chunks for patch in chunk.patches]
        rejects = [reject for chunk in chunks for reject in chunk.rejects]
        assert chunks[-1].last
        assert sum(patch == Patch("r", "n") for patch in found) >= 2
        assert all(check(patch) is None for patch in found)
        if kind is Kind.JSONL and b"\n" not in bad:
            assert len(found) + len(rejects) == 3


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.sampled_from(Kind))
def test_any_bytes_as_a_file(raw: bytes, kind: Kind) -> None:
    for gz in (False, True):
        try:
            for chunk in read(io.BytesIO(raw), Format(kind, gz)):
                assert all(check(patch) is None for patch in chunk.patches)
        except Unreadable:
            continue


# Answers


def test_any_answer_has_a_meaning() -> None:
    """Confirmed only for the run that was asked for, as it was sent or mended; else a value, one
    line. What is kept of it can be read."""
    for body in filled(ANSWERS):
        run, error = run_in(body), error_in(body)
        assert error.message is None or "\n" not in error.message
        for status in (200, 400, 404, 500):
            outcome = classify(Reply(status, body), "r", 0.0)
            assert isinstance(outcome, Confirmed) == (
                status == 200 and run is not None and run.id == "r"
            )
            if isinstance(outcome, Confirmed):
                assert outcome.run.raw in mended(body)
                outcome.run.raw.decode()


@given(nested, damage, st.integers(100, 599))
def test_an_answer_with_a_few_wrong_bytes_too(value: object, changes: list, status: int) -> None:
    run = {"object": "workflow_run", "id": "r", "metadata": value, "error": value, "code": value}
    body = damaged(json.dumps(run).encode(), changes)

    outcome = classify(Reply(status, body), "r", 0.0)

    if isinstance(outcome, Confirmed):
        assert 200 <= status < 300
        assert outcome.run.id == "r"
    elif isinstance(outcome, Refused):
        assert isinstance(outcome.trouble, Trouble)
        assert outcome.trouble.blame in (Blame.PATCH, Blame.RUN)


@given(st.text() | st.from_regex(r"[+-]?[0-9]{1,400}(\.[0-9]+)?", fullmatch=True))
def test_a_retry_after_is_seconds_of_a_day_at_most_or_none(header: str) -> None:
    for now in (0.0, 1.7e9):
        seconds = retry_after_s(header, now)
        assert seconds is None or 0.0 <= seconds <= 86_400.0
    instant(header)


@pytest.mark.parametrize(
    "header",
    [
        *("Mon, 23 Nov 2026 21:00:00 GMT", "Mon, 99 Nov 2026 99:99:99 GMT", "Mon, 23 Nov 2026"),
        *(
            "23 Nov 99999 21:00:00 GMT",
            "Mon, 23 Nov 2026 21:00:00 +9999",
            "²",
            "１２",
            "1e3",
            "\x00",
        ),
        *(
            "Mon, 01 Jan 0001 00:00:00 +0100",
            "Fri, 31 Dec 9999 23:59:59 -0100",
            "0x10",
            "1,1",
            " 7 ",
        ),
    ],
)
def test_a_strange_date_is_no_exception(header: str) -> None:
    seconds = retry_after_s(header, 1.7e9)

    assert seconds is None or 0.0 <= seconds <= 86_400.0


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


# Numbers

NUMBERS = (
    *("0", "-0", "1.0", "1.50", "20006.780", "1e2", "1E+2", "-1.0e-2", "9007199254740993"),
    *("123456789012345678901234567890", "0.1000000000000000055511151231257827", "1e308", "5e-324"),
    *("18446744073709551616", "-9223372036854775809", "3.141592653589793238462643383279"),
    *("1" + "0" * 200, "0." + "0" * 200 + "1", "1e-400", "0.0e0"),
)
REFUSED = ("1e400", "-1e309", "1" + "0" * 400)  # no double holds them: readers would see infinity


def test_numbers_reach_the_vendor_as_they_were_written(tmp_path: Path) -> None:
    """From every kind of file and from rows, alone and folded."""
    files: dict[Kind, str] = {Kind.JSONL: "", Kind.JSON: "", Kind.CSV: ""}
    lines = [
        f'{{"workflow_run_id":"SOURCE-{n}","metadata":{{"v":{number}}}}}'
        for n, number in enumerate(NUMBERS)
    ]
    files[Kind.JSONL] = "\n".join(lines).replace("SOURCE", "jsonl")
    files[Kind.JSON] = "[" + ",".join(lines).replace("SOURCE", "json") + "]"
    files[Kind.CSV] = "workflow_run_id,metadata:json.v\n" + "\n".join(
        f"csv-{n},{number}" for n, number in enumerate(NUMBERS)
    )
    patches = [
        patch
        for kind, text in files.items()
        for chunk in read(io.BytesIO(text.encode() + b"\n"), Format(kind))
        for patch in chunk.patches
    ]

    async def play() -> dict[str, bytes]:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor, rate=1000.0) as stage:
            await stage.store.accept(patches)
            stage.insert(
                (f"row-{n}", None, f'{{"v": {number}}}') for n, number in enumerate(NUMBERS)
            )
            stage.insert((f"row-{n}", None, '{"w": 1}') for n in range(len(NUMBERS)))
            await stage.drained(within_s=60.0)
        return {run: body for _, run, body, _ in vendor.requests}

    bodies = virtually(play())

    assert len(patches) == 3 * len(NUMBERS)
    for source in ("jsonl", "json", "csv", "row"):
        for n, number in enumerate(NUMBERS):
            metadata = msgspec.json.decode(bodies[f"{source}-{n}"], type=_Body).metadata
            assert bytes(metadata["v"]).decode() == number


class _Body(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


@pytest.mark.parametrize("number", REFUSED)
def test_a_number_that_no_reader_can_hold_is_refused_with_a_reason(number: str) -> None:
    found = parse(f'{{"workflow_run_id":"r","metadata":{{"v":{number}}}}}'.encode())

    assert isinstance(found, Invalid)
    assert "number" in found.reason


@pytest.mark.parametrize("number", REFUSED)
def test_a_row_with_such_a_number_is_sent_as_it_was_written(number: str) -> None:
    """SQLite takes it for JSON at the INSERT, so it is accepted."""
    request = fold([Waiting(1, None, f'{{"v": {number}}}'), Waiting(2, None, '{"w": 1}')])

    assert request.ids == (1, 2)
    assert bytes(msgspec.json.decode(request.body, type=_Body).metadata["v"]).decode() == number


number_texts = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@given(st.lists(number_texts, min_size=1, max_size=4))
def test_any_number_is_folded_as_written_or_refused(numbers: list[str]) -> None:
    texts = [
        f'{{"{key}": {text}}}' for key, text in zip(string.ascii_letters, numbers, strict=False)
    ]
    found = [parse(f'{{"workflow_run_id":"r","metadata":{text}}}'.encode()) for text in texts]
    kept = [(n, patch) for n, patch in enumerate(found) if isinstance(patch, Patch)]

    for n, patch in enumerate(found):
        assert isinstance(patch, Patch) == (float(numbers[n]) not in (float("inf"), -float("inf")))
    if not kept:
        return
    request = fold([Waiting(n + 1, None, patch.metadata) for n, patch in kept])
    metadata = msgspec.json.decode(request.body, type=_Body).metadata
    for n, _ in kept:
        assert bytes(metadata[string.ascii_letters[n]]).decode() == numbers[n]
