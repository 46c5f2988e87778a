"""What is a patch and what is not, and the words it is refused with."""

import json
import sqlite3
from importlib.resources import files

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.core.patch import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    Invalid,
    Patch,
    check,
    compact,
    fit,
    parse,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
almost_patches = st.fixed_dictionaries(
    {},
    optional={
        "workflow_run_id": st.text(max_size=300) | json_values,
        "name": st.text() | json_values,
        "metadata": st.dictionaries(st.text(), json_values, max_size=5) | json_values,
        "idempotency_key": st.text(max_size=300) | json_values,
        "priority": st.integers() | json_values,
        "priorty": json_values,
    },
)


def line(**fields: object) -> bytes:
    return orjson.dumps({"workflow_run_id": "run_1", "name": "n", **fields})


def reason(raw: bytes) -> str:
    found = parse(raw)
    assert isinstance(found, Invalid), found
    return found.reason


def nested(depth: int) -> bytes:
    return b'{"workflow_run_id":"r","metadata":{"a":' + b"[" * depth + b"]" * depth + b"}}"


@pytest.fixture(scope="module")
def outbox():
    db = sqlite3.connect(":memory:")
    for migration in sorted(
        (files("syncd.store") / "migrations").iterdir(), key=lambda path: path.name
    ):
        db.executescript(migration.read_text())
    yield db
    db.close()


def test_every_field_arrives() -> None:
    raw = line(metadata={"a": 1}, idempotency_key="k", priority=-3)

    assert parse(raw) == Patch("run_1", "n", '{"a":1}', "k", -3)


def test_metadata_is_kept_as_it_was_written() -> None:
    written = (
        '{"big": 123456789012345678901234567890, "f": 1.10, "e": 1E2, "z": -0, "a": 1, "a": 2}'
    )
    raw = b'{"workflow_run_id": "r", "metadata": ' + written.encode() + b"}"

    assert parse(raw) == Patch("r", None, written)


@pytest.mark.parametrize("field", ["name", "metadata", "idempotency_key"])
def test_null_means_absent(field: str) -> None:
    raw = orjson.dumps({"workflow_run_id": "r", "name": "n", "metadata": {"a": None}, field: None})

    found = parse(raw)

    assert isinstance(found, Patch)
    assert getattr(found, field) is None


def test_a_patch_needs_a_name_or_metadata() -> None:
    assert reason(b'{"workflow_run_id":"r"}') == "a patch needs a name or metadata"
    assert (
        reason(b'{"workflow_run_id":"r","name":null,"metadata":null}')
        == "a patch needs a name or metadata"
    )


def test_empty_metadata_and_an_empty_name_are_something() -> None:
    assert parse(b'{"workflow_run_id":"r","metadata":{}}') == Patch("r", None, "{}")
    assert parse(b'{"workflow_run_id":"r","name":""}') == Patch("r", "")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b'"x"', "must be a JSON object, not a string"),
        (b"7", "must be a JSON object, not a number"),
        (b"true", "must be a JSON object, not a boolean"),
        (b'{"name":"n"}', "workflow_run_id is missing"),
        (b'{"workflow_run_id":7,"name":"n"}', "workflow_run_id must be a string, not a number"),
        (line(workflow_run_id=""), "1 to 255 characters"),
        (line(workflow_run_id="x" * 256), "1 to 255 characters"),
        (line(workflow_run_id="."), "must not be . or .."),
        (line(workflow_run_id=".."), "must not be . or .."),
        (line(workflow_run_id="a\nb"), "control characters"),
        (line(workflow_run_id="a\x00b"), "control characters"),
        (line(workflow_run_id="a\x7fb"), "control characters"),
        (line(workflow_run_id="a\x9fb"), "control characters"),
        (line(name=7), "name must be a string, not a number"),
        (line(name="a\x00"), "name must not contain NUL"),
        (line(metadata=[]), "metadata must be a JSON object, not an array"),
        (line(metadata="{}"), "metadata must be a JSON object, not a string"),
        (line(idempotency_key=""), "idempotency_key must be 1 to 255 characters"),
        (line(idempotency_key="k" * 256), "idempotency_key must be 1 to 255 characters"),
        (line(idempotency_key="\x00"), "idempotency_key must not contain NUL"),
        (line(idempotency_key=1), "idempotency_key must be a string"),
        (line(priority=True), "priority must be an integer"),
        (line(priority=1.5), "priority must be an integer"),
        (line(priority="1"), "priority must be an integer"),
        (line(priority=None), "priority must be an integer"),
        (line(priority=1 << 63), "priority must be an integer"),
        (b'{"workflow_run_id":"r","name":"n","priority":' + b"9" * 30 + b"}", "priority"),
        (b'{"workflow_run_id":"r","name":"\xff"}', "not valid UTF-8 at byte 32"),
        (b'\xef\xbb\xbf{"workflow_run_id":"r","name":"n"}', "BOM"),
        ('{"workflow_run_id":"r","name":"n"}'.encode("utf-16"), "not valid UTF-8"),
        (b'{"workflow_run_id":"r","name":"\\ud800"}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":"\\udc00"}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":NaN}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":Infinity}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":1e400}}', "infinity"),
        (b'{"workflow_run_id":"r","metadata":{"a":01}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":\'1\'}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":1,}}', "not valid JSON"),
        (b'{"workflow_run_id":"r","metadata":{"a":"\x01"}}', "control character"),
        (b'{"workflow_run_id":"r","name":"n"} x', "not valid JSON"),
        (b'{"workflow_run_id":"r","name":"n"}\x00', "not valid JSON"),
    ],
)
def test_what_is_no_patch_is_refused_with_its_reason(raw: bytes, words: str) -> None:
    assert words in reason(raw)
    assert "\n" not in reason(raw)


def test_an_unknown_field_is_refused_with_the_nearest_known_name() -> None:
    assert reason(line(nmae="x")) == 'unknown field "nmae": did you mean "name"?'
    assert reason(line(meta_data={})) == 'unknown field "meta_data": did you mean "metadata"?'
    assert "known are workflow_run_id, name," in reason(line(zzz=1))
    assert len(reason(line(**{"long\n" * 1000: 1}))) < 300


@pytest.mark.parametrize(
    "raw",
    [
        b'{"workflow_run_id":"a","workflow_run_id":"b","name":"n"}',
        b'{"workflow_run_id":"a","name":"n","n\\u0061me":"m"}',
        b'{"workflow_run_id":"a","metadata":{"x":"y"},"metadata":{}}',
        b'{"workflow_run_id":"a","name":"n","name":null}',
        b'{"workflow_run_id":"a","name":"n","priority":1,"priority":2}',
        b'{"workflow_run_id":"a","name":"say \\"n\\"","name":"say \\"m\\""}',
    ],
)
def test_a_field_given_twice_is_refused(raw: bytes) -> None:
    assert "is given twice" in reason(raw)


def test_quotation_marks_and_escapes_are_no_repetition() -> None:
    raw = line(name='say "a" \\ "b"', metadata={'k"': '"v"', "name": "name"})

    assert isinstance(parse(raw), Patch)


@pytest.mark.parametrize("letter", ["x", "é", "\u20ac", "\U0001f600"])
def test_names_have_a_size_in_bytes(letter: str) -> None:
    longest = letter * (10_240 // len(letter.encode()))

    assert fit(Patch("r", longest)) == Patch("r", longest)
    assert fit(Patch("r", longest + letter)) == Invalid("name must be at most 10240 bytes")
    raw = orjson.dumps({"workflow_run_id": "r", "name": longest + letter})
    assert parse(raw) == Invalid("name must be at most 10240 bytes")


def test_a_name_too_long_that_is_no_unicode_is_refused() -> None:
    assert isinstance(fit(Patch("r", "\ud800" * 10_241)), Invalid)


def test_metadata_is_measured_compact() -> None:
    fill = MAX_METADATA_BYTES - len('{"a":""}')
    spaced = '{ "a" : "' + "x" * fill + '" }'
    escaped = '{"a":"' + "\\u00e9" * (fill // 2) + '"}'

    def put(text: str) -> Patch | Invalid:
        return parse(b'{"workflow_run_id":"r","metadata":' + text.encode() + b"}")

    assert put(spaced) == Patch("r", None, '{"a":"' + "x" * fill + '"}')
    assert put(escaped) == Patch("r", None, '{"a":"' + "é" * (fill // 2) + '"}')
    assert put('{"a":"' + "x" * (fill + 1) + '"}') == Invalid(
        "metadata must be at most 10240 bytes"
    )


def test_deep_nesting_is_refused_and_never_overflows_the_stack() -> None:
    assert isinstance(parse(nested(MAX_METADATA_DEPTH - 1)), Patch)
    assert "nested deeper" in reason(nested(MAX_METADATA_DEPTH))
    assert "nested deeper" in reason(nested(1000))
    assert "depth" in reason(nested(200_000))
    assert isinstance(parse(b"[" * 200_000), Invalid)
    wide = b'{"workflow_run_id":"r","metadata":{"a":[' + b",".join([b"[]"] * 600) + b"]}}"
    assert isinstance(parse(wide), Patch)


@given(
    st.binary() | almost_patches.map(lambda p: json.dumps(p).encode()) | st.text().map(str.encode)
)
@example(b'{"workflow_run_id":"\\ud83d\\ude00","name":""}')
def test_parse_never_raises(raw: bytes) -> None:
    assert isinstance(parse(raw), Patch | Invalid)


@given(almost_patches, st.booleans())
def test_what_parse_takes_the_outbox_takes_as_it_is(outbox, fields: dict, ascii_only: bool) -> None:
    raw = json.dumps(fields, ensure_ascii=ascii_only).encode(errors="replace")

    found = parse(raw)

    if isinstance(found, Patch):
        assert check(found) is None
        before = outbox.total_changes
        outbox.execute(
            "INSERT INTO outbox (workflow_run_id, name, metadata, priority) VALUES (?, ?, ?, ?)",
            (found.workflow_run_id, found.name, found.metadata, found.priority),
        )
        assert outbox.total_changes > before
        outbox.rollback()
        assert fields["workflow_run_id"] == found.workflow_run_id
        assert fields.get("name") == found.name


@given(st.dictionaries(st.text(), json_values), st.integers(0, 3), st.booleans())
def test_compacting_changes_no_value(value: dict, indent: int, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")

    shorter = compact(text)

    assert json.loads(shorter) == json.loads(text)
    assert len(shorter) <= len(text)


def test_compacting_leaves_numbers_alone() -> None:
    assert compact(b'{ "a" : 1.10 , "b":\t1E400,\r\n"c\\u0041":" \\u00e9 \\n" }') == (
        '{"a":1.10,"b":1E400,"cA":" é \\n"}'.encode()
    )


@given(st.dictionaries(st.text(), json_values), st.integers(0, 200), st.booleans())
def test_compacting_stops_at_what_is_too_long(value: dict, most: int, ascii_only: bool) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=ascii_only).encode(errors="replace")
    whole = compact(text)

    shorter = compact(text, most)

    assert shorter == whole if len(whole) <= most else len(shorter) > most


def test_patches_made_by_hand_are_held_to_the_same_rules() -> None:
    assert check(Patch("r", "n", '{"a": 1}', "k", 1)) is None
    assert check(Patch("", "n")) == "workflow_run_id must be 1 to 255 characters"
    assert check(Patch("r")) == "a patch needs a name or metadata"
    assert check(Patch("r", metadata="[1]")) == "metadata must be a JSON object, not an array"
    assert "not valid JSON" in str(check(Patch("r", metadata="{")))
    assert "infinity" in str(check(Patch("r", metadata='{"a":1e999}')))
    assert "nested" in str(check(Patch("r", metadata='{"a":' + "[" * 600 + "]" * 600 + "}")))
    assert "Unicode" in str(check(Patch("r\udc80", "n")))
    assert "Unicode" in str(check(Patch("r", "\udc80")))
    assert "Unicode" in str(check(Patch("r", metadata='{"a":"\udc80"}')))


def test_fit_compacts_what_check_would_refuse() -> None:
    loose = Patch("r", metadata='{"a":' + " " * MAX_METADATA_BYTES + "1.0}")

    assert check(loose) == "metadata must be at most 10240 bytes"
    assert fit(loose) == Patch("r", metadata='{"a":1.0}')
