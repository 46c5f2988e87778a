"""What an answer means: whom a failure speaks for, for every answer there can be."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.answer import NoReply, Reply
from syncd.core.outcome import (
    Blame,
    Confirmed,
    LockedOut,
    Refused,
    Unavailable,
    classify,
    lockout,
)

RUN_ID = "workflow_run_1"
NOW = datetime(2026, 2, 9, 12, 0, 0, tzinfo=UTC).timestamp()


def error(status: int, retry_after: str | None = None, **fields: object) -> Reply:
    """An answer with the current generation's error body."""
    return Reply(status, json.dumps(fields).encode(), retry_after)


def blame_of(answer: Reply | NoReply) -> Blame | None:
    outcome = classify(answer, RUN_ID, NOW)
    return None if isinstance(outcome, Confirmed) else outcome.trouble.blame


# Whom a status speaks for, where the body does not say better

RUN = {404, 410}
CREDENTIALS = {401, 402, 403}
SERVER = {408, 409, 421, 425, 429}


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_speaks_for_somebody(status: int) -> None:
    blame = blame_of(Reply(status, b""))

    if status in RUN:
        assert blame is Blame.RUN
    elif status in CREDENTIALS:
        assert blame is Blame.CREDENTIALS
    elif status in SERVER or status >= 500 or status < 400:
        assert blame is Blame.SERVER
    else:
        assert blame is Blame.PATCH


@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_credentials_lock_out_and_park_nothing(status: int) -> None:
    for body in (b"", b'{"success":false,"error":"no"}', b'{"retryable":false}', b"<html>"):
        assert isinstance(classify(Reply(status, body), RUN_ID, NOW), LockedOut)


def test_a_version_that_is_gone_is_not_told_as_refused_credentials() -> None:
    outcome = classify(error(410, code="ENDPOINT_REMOVED"), RUN_ID, NOW)

    assert isinstance(outcome, LockedOut)
    assert "set api.version" in lockout(outcome.trouble.code)
    assert "credentials" not in lockout(outcome.trouble.code)
    assert "does not accept the credentials" in lockout("http_401")


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refusal_of_credentials_that_may_pass_is_the_servers(status: int) -> None:
    assert blame_of(error(status, retryable=True)) is Blame.SERVER


@pytest.mark.parametrize(
    ("status", "retryable", "blame"),
    [
        (400, True, Blame.SERVER),
        (404, True, Blame.SERVER),
        (422, True, Blame.SERVER),
        (500, True, Blame.SERVER),
        (500, False, Blame.PATCH),
        (503, False, Blame.PATCH),
        (409, False, Blame.PATCH),
        (404, False, Blame.RUN),
        (410, False, Blame.RUN),
        (422, False, Blame.PATCH),
    ],
)
def test_retryable_outranks_the_status(status: int, retryable: bool, blame: Blame) -> None:
    assert blame_of(error(status, retryable=retryable)) is blame
    assert blame_of(error(status, error={"retryable": retryable})) is blame


@pytest.mark.parametrize(
    ("status", "code", "blame"),
    [
        (400, "UNAUTHORIZED", Blame.CREDENTIALS),
        (400, "USAGE_BLOCKED", Blame.CREDENTIALS),
        (410, "ENDPOINT_REMOVED", Blame.CREDENTIALS),
        (400, "NOT_FOUND", Blame.RUN),
        (400, "RATE_LIMIT_EXCEEDED", Blame.SERVER),
        (400, "INTERNAL_ERROR", Blame.SERVER),
        (400, "INVALID_REQUEST", Blame.PATCH),
        (400, "SOMETHING_NEW", Blame.PATCH),
        (503, "SOMETHING_NEW", Blame.SERVER),
    ],
)
def test_a_documented_code_says_more_than_its_status(status: int, code: str, blame: Blame) -> None:
    assert blame_of(error(status, code=code)) is blame


def test_a_code_that_names_the_blame_stands_even_if_it_is_not_retryable() -> None:
    assert blame_of(error(400, code="USAGE_BLOCKED", retryable=False)) is Blame.CREDENTIALS
    assert blame_of(error(422, code="NOT_FOUND", retryable=False)) is Blame.RUN


@pytest.mark.parametrize(
    "code", ["NOT_FOUND", "UNAUTHORIZED", "USAGE_BLOCKED", "ENDPOINT_REMOVED", "INVALID_REQUEST"]
)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_fails_blames_nobody_else_by_a_code(status: int, code: str) -> None:
    """A proxy that has lost what is behind it may say NOT_FOUND; no patch is parked for that."""
    assert blame_of(error(status, code=code)) is Blame.SERVER
    assert blame_of(error(status, error={"code": code})) is Blame.SERVER


def test_a_server_that_fails_and_is_sure_of_it_is_believed() -> None:
    assert blame_of(error(500, code="NOT_FOUND", retryable=False)) is Blame.RUN
    assert blame_of(error(500, code="ENDPOINT_REMOVED", retryable=False)) is Blame.CREDENTIALS


@given(
    fields=st.dictionaries(
        st.sampled_from(["code", "message", "retryable", "error", "success"]),
        st.sampled_from(["INVALID_REQUEST", "NOT_FOUND", "UNAUTHORIZED", True, False, None, 7]),
    )
)
def test_too_fast_is_never_a_patchs_fault(fields: dict[str, Any]) -> None:
    outcome = classify(error(429, **fields), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert (outcome.throttled, outcome.overloaded, outcome.ambiguous) == (True, True, False)


def test_a_rate_limit_under_another_status_is_a_rate_limit() -> None:
    outcome = classify(error(503, code="RATE_LIMIT_EXCEEDED"), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert outcome.throttled


# Whether the request may have been applied, and whether fewer would help


@pytest.mark.parametrize(
    ("status", "ambiguous", "overloaded"),
    [
        (500, True, False),
        (502, True, False),
        (503, True, True),
        (504, True, True),
        (408, True, False),
        (409, False, False),
        (425, False, False),
        (429, False, True),
    ],
)
def test_a_failing_server_leaves_open_whether_it_applied_the_request(
    status: int, ambiguous: bool, overloaded: bool
) -> None:
    outcome = classify(Reply(status, b""), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert (outcome.ambiguous, outcome.overloaded) == (ambiguous, overloaded)


@pytest.mark.parametrize("cause", ["timeout", "connect", "dns", "tls", "reset", "cut", "redirect"])
@pytest.mark.parametrize("ambiguous", [True, False])
def test_no_answer_blames_the_server_and_keeps_its_cause(cause: str, ambiguous: bool) -> None:
    outcome = classify(NoReply(cause, "what happened", ambiguous), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert outcome.trouble.blame is Blame.SERVER
    assert (outcome.trouble.code, outcome.trouble.message) == (cause, "what happened")
    assert outcome.trouble.status is None
    assert outcome.ambiguous is ambiguous
    assert outcome.overloaded is (cause == "timeout")
    assert (outcome.retry_after_s, outcome.throttled) == (None, False)


# What confirms


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize(
    "body",
    [
        {"object": "workflow_run", "id": RUN_ID},
        {"success": True, "workflowRun": {"object": "workflow_run", "id": RUN_ID}},
    ],
)
def test_the_run_that_was_asked_for_confirms(status: int, body: object) -> None:
    outcome = classify(Reply(status, json.dumps(body).encode()), RUN_ID, NOW)

    assert isinstance(outcome, Confirmed)
    assert outcome.run.id == RUN_ID


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"object":"workflow_run","id":"workflow_run_2"}', "wrong_run"),
        (b'{"success":true,"workflowRun":{"id":"WORKFLOW_RUN_1"}}', "wrong_run"),
        (b'{"success":false,"error":"not now"}', "not_a_run"),
        (b'{"success":false,"workflowRun":{"id":"workflow_run_1"}}', "not_a_run"),
        (b'{"code":"INTERNAL_ERROR","message":"m"}', "INTERNAL_ERROR"),
        (b"<html>a proxy's welcome</html>", "not_a_run"),
        (b"", "not_a_run"),
        (b"null", "not_a_run"),
    ],
)
def test_a_2xx_without_the_right_run_confirms_nothing_and_may_have_been_applied(
    body: bytes, code: str
) -> None:
    outcome = classify(Reply(200, body), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert outcome.trouble.code == code
    assert outcome.trouble.status == 200
    assert outcome.ambiguous
    assert not outcome.overloaded


# What is kept of a failure


def test_trouble_keeps_what_the_vendor_said() -> None:
    answer = error(422, code="INVALID_REQUEST", message="too long", requestId="req_1")

    outcome = classify(answer, RUN_ID, NOW)

    assert isinstance(outcome, Refused)
    trouble = outcome.trouble
    assert (trouble.code, trouble.message) == ("INVALID_REQUEST", "too long")
    assert (trouble.status, trouble.request_id) == (422, "req_1")


def test_trouble_without_words_still_says_something() -> None:
    outcome = classify(Reply(500, b"", None, "req_header"), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    trouble = outcome.trouble
    assert (trouble.code, trouble.message) == ("http_500", "HTTP 500 without a message")
    assert trouble.request_id == "req_header"


# Retry-After


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_what_the_server_asked_for_is_kept(status: int) -> None:
    outcome = classify(error(status, retry_after="17"), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert (outcome.retry_after_s, outcome.disregarded) == (17.0, None)


@pytest.mark.parametrize("mistake", ["in a while", "99999999999999999999999"])
def test_what_it_cannot_have_meant_is_not_obeyed_and_can_be_told(mistake: str) -> None:
    outcome = classify(error(429, retry_after=mistake), RUN_ID, NOW)

    assert isinstance(outcome, Unavailable)
    assert (outcome.retry_after_s, outcome.disregarded) == (None, mistake)


def test_a_date_is_measured_by_the_servers_own_clock_where_it_tells_it() -> None:
    an_hour_ahead = Reply(
        429, b"", "Mon, 09 Feb 2026 13:00:05 GMT", date="Mon, 09 Feb 2026 13:00:00 GMT"
    )
    garbled = Reply(429, b"", "Mon, 09 Feb 2026 12:00:05 GMT", date="yesterday")

    for answer in (an_hour_ahead, garbled):
        outcome = classify(answer, RUN_ID, NOW)
        assert isinstance(outcome, Unavailable)
        assert outcome.retry_after_s == 5.0


# Totality

BODIES = st.binary(max_size=40) | st.builds(
    lambda fields, wrapped: json.dumps({"error": fields} if wrapped else fields).encode(),
    st.dictionaries(
        st.sampled_from(["code", "message", "retryable", "requestId", "id", "success"]),
        st.none() | st.booleans() | st.integers() | st.sampled_from([RUN_ID, "NOT_FOUND", "x"]),
    ),
    st.booleans(),
)
ANSWERS = st.builds(
    Reply,
    st.integers(100, 599),
    BODIES,
    st.none() | st.text(max_size=12),
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=12),
) | st.builds(NoReply, st.text(max_size=9), st.text(max_size=9), st.booleans())


@given(answer=ANSWERS, now=st.floats(0, 4e9))
def test_every_answer_has_exactly_one_meaning(answer: Reply | NoReply, now: float) -> None:
    outcome = classify(answer, RUN_ID, now)

    match outcome:
        case Confirmed(run):
            assert run.id == RUN_ID
            assert isinstance(answer, Reply)
            assert 200 <= answer.status < 300
        case Refused(trouble):
            assert trouble.blame in (Blame.PATCH, Blame.RUN)
        case LockedOut(trouble):
            assert trouble.blame is Blame.CREDENTIALS
        case Unavailable(trouble):
            assert trouble.blame is Blame.SERVER
    if isinstance(answer, Reply) and answer.status in (*range(200, 300), 429):
        assert isinstance(outcome, Confirmed | Unavailable)
    if not isinstance(outcome, Confirmed):
        assert outcome.trouble.code or isinstance(answer, NoReply)
