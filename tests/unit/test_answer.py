"""What is found in an answer's body: a WorkflowRun in either wrapping, or an error in any shape."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.answer import Run, VendorError, error_in, is_error, run_in

BARE: dict[str, Any] = {
    "object": "workflow_run",
    "id": "workflow_run_1",
    "status": "PROCESSED",
    "name": "Invoices",
    "metadata": {"a": 1},
    "stepRuns": [],
}


def test_a_bare_run_is_found() -> None:
    body = json.dumps(BARE).encode()

    run = run_in(body)

    assert run == Run("workflow_run_1", body, "PROCESSED", "Invoices", '{"a": 1}')


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"success":true,"workflowRun":{"id":"r","x":[1,{}]}}', b'{"id":"r","x":[1,{}]}'),
        (b'{"success":true,"workflowRun":{"id":"r"},"more":{}}', b'{"id":"r"}'),
        (b'{"success":true,"workflowRun":{"id":"r"}}\n', b'{"id":"r"}'),
        (b'{"success":true,"workflowRun":{"id":"r"},"success":false}', None),
        (b'{"success":true,"workflowRun":{"id":"r"}', None),
        (b'{"success":true,"workflowRun":{"id":"r"}]', None),
        (b'{"success":true,"workflowRun":{"id":"r"}}}', None),
    ],
)
def test_the_wrapper_of_older_generations_is_no_shortcut_past_what_else_is_there(
    body: bytes, found: bytes | None
) -> None:
    run = run_in(body)

    assert (run and run.raw) == found


def test_a_wrapped_run_is_found_and_kept_without_its_wrapping() -> None:
    body = b'{"success": true, "workflowRun": {"id": "r", "metadata": {"n": 1.0e5}} , "more": 1}'

    run = run_in(body)

    assert run == Run("r", b'{"id": "r", "metadata": {"n": 1.0e5}}', None, None, '{"n": 1.0e5}')


def test_what_a_run_does_not_say_is_none() -> None:
    run = run_in(b'{"object":"workflow_run","id":"r"}')

    assert run is not None
    assert (run.status, run.name, run.metadata) == (None, None, None)


def test_fields_of_an_unexpected_kind_do_not_cost_the_run() -> None:
    run = run_in(b'{"id":"r","status":7,"name":["x"],"metadata":[1]}')

    assert run is not None
    assert (run.status, run.name, run.metadata) == (None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"workflow_run_1"',
        b"<html>200 OK</html>",
        b'{"id":""}',
        b'{"success":true}',
        b'{"id":7}',
        b'{"object":"list","id":"r","data":[]}',
        b'{"success":true,"workflowRun":null}',
        b'{"success":true,"workflowRun":"r"}',
        b'{"success":true,"workflowRun":{"id":"r","object":"file"}}',
        b'{"success":"yes","workflowRun":{"id":"r"}}',
        b'{"id":"r"',
        b'\xff\xfe{"id":"r"}',
        b'{"id":"r","x":"\\ud83"}',
        b'{"id":"r","x":"\\ud83d}',
        b'{"id":"\\ud83d\xff"',
    ],
)
def test_what_is_not_a_run_is_not_taken_for_one(body: bytes) -> None:
    assert run_in(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"r","metadata":{"n":1.0e5},"outputs":"cut \\ud83d"}',
        b'{"id":"r","metadata":{"n":1.0e5},"outputs":"cut \xf0\x9f"}',
        b'{"success":true,"workflowRun":{"id":"r","metadata":{"n":1.0e5},"\\uDE00":1}}',
        b'{"success":true,"x":"\xff","workflowRun":{"id":"r","metadata":{"n":1.0e5}}}',
    ],
)
def test_half_a_character_anywhere_does_not_cost_the_run(body: bytes) -> None:
    run = run_in(body)

    assert run is not None
    assert run.metadata == '{"n":1.0e5}'
    assert b"1.0e5" in run.raw
    assert readable(run.raw)


@pytest.mark.parametrize(
    ("field", "half", "found"),
    [
        ("name", b"\\ud83d", "\ufffd"),
        ("name", b"\xff", "\ufffd"),
        ("status", b"A\\uDC00\xed\xa0\x80", "A" + 4 * "\ufffd"),
        ("name", b"\\\\ud83d", "\\ud83d"),
        ("name", b"\\ud83d\\uD83D\\uDE00", "\ufffd\U0001f600"),
    ],
)
def test_half_a_character_is_read_as_such(field: str, half: bytes, found: str) -> None:
    run = run_in(
        b'{"id":"r","metadata":{"a":"' + half + b'"},"' + field.encode() + b'":"' + half + b'"}'
    )

    assert run is not None
    assert getattr(run, field) == found
    assert json.loads(run.metadata or "") == {"a": found}


def readable(raw: bytes) -> bool:
    """Whether each of those who read a snapshot takes it: `show`, `runs` and SQL."""
    orjson.loads(raw)
    msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    with closing(sqlite3.connect(":memory:")) as db:
        keys = db.execute("SELECT count(*) FROM json_each(?)", (raw.decode(),)).fetchone()
    return keys == (len(json.loads(raw)),)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false,"workflowRun":{"object":"workflow_run","id":"r"}}',
        b'{"success":false,"object":"workflow_run","id":"r"}',
    ],
)
def test_success_false_is_no_run_whatever_else_is_in_it(body: bytes) -> None:
    assert run_in(body) is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            b'{"code":"INVALID_REQUEST","message":"m","retryable":false,"requestId":"req_1"}',
            VendorError("INVALID_REQUEST", "m", False, "req_1"),
        ),
        (
            b'{"error":{"code":"NOT_FOUND","message":"m","retryable":true,"docUrl":"u"}}',
            VendorError("NOT_FOUND", "m", True, None),
        ),
        (b'{"success":false,"error":"not\\n  so"}', VendorError(message="not so")),
        (b'{"error":null}', VendorError()),
        (b'{"error":{}}', VendorError()),
        (b"{}", VendorError()),
        (b'{"code":7,"message":[],"retryable":"yes","requestId":null}', VendorError()),
        (b'["no"]', VendorError(message="['no']")),
        (b"Bad Gateway\r\n", VendorError(message="Bad Gateway")),
        (b"", VendorError()),
        (b"\xff\xfe", VendorError(message="\ufffd\ufffd")),
        (
            b'{"code":"NOT_FOUND","message":"m \\ud83d","retryable":false}',
            VendorError("NOT_FOUND", "m \ufffd", False),
        ),
        (b'{"code":"NOT_FOUND","message":"m \xff"}', VendorError("NOT_FOUND", "m \ufffd")),
    ],
)
def test_an_error_is_read_in_each_of_the_documented_shapes(body: bytes, error: VendorError) -> None:
    assert error_in(body) == error


def test_a_proxys_page_becomes_one_short_line() -> None:
    page = b"<html>\n <head><title>502 Bad Gateway</title></head>\n" + b"<p>sorry</p>\n" * 1_000

    message = error_in(page).message

    assert message is not None
    assert message.startswith("<html> <head><title>502 Bad Gateway</title>")
    assert len(message) == 300
    assert "\n" not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "code", "message", "retryable", "requestId", "success", "workflowRun"]
            )
            | st.sampled_from(["id", "object", "status", "name", "metadata"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(BODIES)
def test_no_body_can_raise(body: bytes) -> None:
    run, error = run_in(body), error_in(body)

    assert run is None or run.id
    for text in (error.code, error.message, error.request_id):
        assert text is None or ("\n" not in text and 0 < len(text) <= 300)


@pytest.mark.parametrize("depth", [*range(950, 1_050, 3), 200_000])
@pytest.mark.parametrize(
    ("left", "right"), [(b"[", b"]"), (b'{"error":', b"}"), (b'{"workflowRun":', b"}")]
)
def test_no_nesting_is_too_deep(depth: int, left: bytes, right: bytes) -> None:
    nested = left * depth + b"1" + right * depth

    for body in (nested, b'{"error":' + nested + b"}", b'{"id":"r","metadata":' + nested + b"}"):
        error_in(body)
        run_in(body)


@pytest.mark.parametrize("number", [b"9" * 5_000, b"1e999", b"-" + b"9" * 400 + b".5"])
def test_no_number_is_too_large(number: bytes) -> None:
    assert error_in(number).message
    assert error_in(b'{"error":' + number + b"}").message
    assert run_in(b'{"id":"r","metadata":{"a":' + number + b"}}") is not None


@pytest.mark.parametrize("kind", ["metadata", "status", "name", "usage"])
def test_a_run_keeps_every_value_in_the_vendors_own_words(kind: str) -> None:
    value = b'{ "n" : 12345678901234567890123, "z":-0.0, "e":"\\u00e9" }'
    body = b'{"id":"r","' + kind.encode() + b'":' + value + b"}"

    run = run_in(body)

    assert run is not None
    assert run.raw == body
    assert run.metadata == (value.decode() if kind == "metadata" else None)


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (b'{"code":"NOT_FOUND","message":"No such run.","retryable":false}', True),
        (b'{"error":{"code":"NOT_FOUND","message":"No such run."}}', True),
        (b'{"success":false,"error":"Workflow run not found"}', True),
        (b'{"error":"Not found"}', True),
        (b"", False),
        (b"404 page not found", False),
        (b"<html><h1>Not Found</h1></html>", False),
        (b'{"detail":"Not Found"}', False),
        (b'{"message":"no Route matched with those values"}', False),
        (b'{"code":404,"message":"HTTP 404 Not Found"}', False),
        (b'{"status":404,"error":"Not Found","path":"/workflow_runs/r"}', False),
        (b"[" * 100_000, False),
    ],
)
def test_an_error_of_the_api_is_told_from_what_any_server_says(body: bytes, is_one: bool) -> None:
    assert is_error(body) is is_one
