"""Every generation's answer has the fields of its documents, and the same values each time."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.sandbox import Api
from syncd.sandbox.bodies import status_of, workflow_run
from syncd.sandbox.refusals import error_body, refusal

RUN = "workflow_run_1234~PROCESSED"

FIELDS_2024 = {
    *("object", "id", "name", "batchId", "status", "url", "metadata", "initialRunAt"),
    *("reviewedBy", "reviewedAt", "startTime", "endTime", "files", "outputs", "stepRuns"),
    "workflow",
}
FIELDS_2026 = {
    *("object", "id", "workflow", "workflowVersion", "dashboardUrl", "status", "metadata"),
    *("batchId", "files", "failureReason", "failureMessage", "initialRunAt", "reviewedByUser"),
    *("reviewed", "rejectionNote", "reviewedAt", "startTime", "endTime", "stepRuns", "usage"),
}
FIELDS = {
    Api.V1: FIELDS_2024,
    Api.V2024: FIELDS_2024,
    Api.V2025: {*FIELDS_2024, "reviewed", "usage"},
    Api.V2026: FIELDS_2026,
}


def answered(api, run_id=RUN, metadata=b"{}", **switches):
    body = orjson.loads(workflow_run(api, run_id, "a name", metadata, **switches))
    if api == Api.V2026:
        return body
    assert set(body) == {"success", "workflowRun"}
    assert body["success"] is True
    return body["workflowRun"]


@pytest.mark.parametrize("api", Api)
def test_an_answer_has_exactly_the_documented_fields(api):
    run = answered(api, metadata=b'{"internal_id":"id_1234"}')

    assert set(run) == FIELDS[api]
    assert (run["object"], run["id"], run["status"]) == ("workflow_run", RUN, "PROCESSED")
    assert run["metadata"] == {"internal_id": "id_1234"}
    assert run.get("name") == (None if api == Api.V2026 else "a name")


@pytest.mark.parametrize("api", Api)
def test_a_usual_answer_is_between_three_and_a_half_and_seven_kilobytes(api):
    assert 3_500 < len(workflow_run(api, RUN, "a name", b"{}")) < 7_000


@pytest.mark.parametrize("api", Api)
def test_results_carry_citations(api):
    run = answered(api)

    result = run["stepRuns"][0]["result"]["extractRun"] if api == Api.V2026 else run["outputs"][0]
    evidence = result["output"]["metadata"]["amount"]
    assert evidence["citations"][0]["referenceText"].startswith("TOTAL $")
    assert len(evidence["citations"][0]["polygon"]) == 4
    assert evidence["insights"][0]["type"] == "reasoning"


def test_a_step_of_2026_names_its_kind_in_both_places():
    steps = answered(Api.V2026)["stepRuns"]

    assert [step["stepType"] for step in steps] == ["EXTRACT", "RULE_VALIDATION"]
    assert all(step["step"]["type"] == step["stepType"] for step in steps)


@pytest.mark.parametrize("api", [Api.V1, Api.V2024, Api.V2025])
def test_name_can_be_left_out_as_in_the_oldest_example(api):
    assert "name" not in answered(api, show_name=False)


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize("status", ["PENDING", "FAILED", "NEEDS_REVIEW"])
def test_a_run_id_can_choose_its_status(api, status):
    run = answered(api, run_id=f"workflow_run_7~{status}")

    assert run["status"] == status
    assert (run.get("endTime") is None) == (status == "PENDING")
    assert bool(run.get("failureMessage")) == (status == "FAILED")


@given(st.sampled_from(Api), st.text(min_size=1, max_size=255))
def test_any_run_id_gets_the_same_answer_each_time(api, run_id):
    first = answered(api, run_id)

    assert first == answered(api, run_id)
    assert first["id"] == run_id
    assert first["status"] == status_of(api, run_id)


def test_error_bodies_have_the_shape_of_their_generation():
    bare = orjson.loads(error_body(Api.V2026, refusal(500), "req_1"))
    limited = orjson.loads(error_body(Api.V2026, refusal(429), "req_1"))
    older = orjson.loads(error_body(Api.V1, refusal(404), "req_1"))

    assert bare == {
        "code": "INTERNAL_ERROR",
        "message": "Something went wrong.",
        "retryable": True,
        "requestId": "req_1",
    }
    assert limited["code"] == "RATE_LIMIT_EXCEEDED"
    assert limited["retryable"] is True
    assert older == {"success": False, "error": "The workflow run was not found."}


@given(st.integers(400, 599))
def test_every_error_status_has_a_code_and_knows_whether_to_retry(status):
    refused = refusal(status)

    assert refused.code.isupper()
    assert refused.message
    assert refused.retryable == (status >= 500 or status in {408, 409, 425, 429})
