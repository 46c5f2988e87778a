"""Every parser against texts made to break parsers: patches, files, answers."""

import csv
import io
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torture import SHAPES, VALUES, damage, damaged, filled, nested

from syncd.core.answer import Reply, error_in, run_in
from syncd.core.fold import Waiting, fold
from syncd.core.mend import mended
from syncd.core.outcome import Blame, Confirmed, Refused, Trouble, classify
from syncd.core.patch import Invalid, Patch, check, fit, parse
from syncd.core.retry_after import asked_for, instant
from syncd.formats import Format, Kind, Unreadable, read

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


def in_a_line(error: Exception) -> None:
    """It is what a person is told."""
    assert str(error)
    assert "\n" not in str(error)


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


patches = st.fixed_dictionaries(
    {"workflow_run_id": st.text(max_size=300)},
    optional={
        "name": st.text() | nested,
        "metadata": st.dictionaries(st.text(max_size=9), nested, max_size=5) | nested,
        "idempotency_key": st.text(max_size=300) | nested,
        "priority": st.integers() | nested,
    },
)


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
        seconds = asked_for(header, now).seconds
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
    seconds = asked_for(header, 1.7e9).seconds

    assert seconds is None or 0.0 <= seconds <= 86_400.0
