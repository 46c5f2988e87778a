"""The vendor's own Python client works against the sandbox as it comes."""

import asyncio
from contextlib import asynccontextmanager

import extend_ai  # which imports what is asked of it, and no less than a second's worth
import httpx
import pytest
from sandboxed import sandboxed

RUN = "workflow_run_xKm9pNv3qWsY_jL2tR5Dh"
ONCE = {"max_retries": 0, "timeout_in_seconds": 5}


@asynccontextmanager
async def vendor_client(token="sandbox-token", **settings):
    """The client, and the sandbox that it speaks to."""
    async with sandboxed(api="2026-02-09", **settings) as box, httpx.AsyncClient() as http:
        yield extend_ai.AsyncExtend(token=token, base_url=box.url, httpx_client=http), box


async def test_an_update_is_answered_with_the_whole_run():
    async with vendor_client() as (client, box):
        run = await client.workflow_runs.update(
            f"{RUN}~PROCESSED", name="test_workflow", metadata={"internal_id": "id_1234"}
        )
        state = await box.state()

    assert (run.object, run.id, run.status) == ("workflow_run", f"{RUN}~PROCESSED", "PROCESSED")
    assert run.metadata == {"internal_id": "id_1234"}
    assert run.reviewed
    assert run.end_time > run.start_time > run.initial_run_at
    assert run.workflow.name == "Invoices"
    assert run.files[0].metadata.page_count == run.usage.breakdown[0].charges[0].quantity
    assert state[run.id] == {"name": "test_workflow", "metadata": {"internal_id": "id_1234"}}


async def test_its_steps_and_their_results_are_read_as_their_own_types():
    async with vendor_client() as (client, _):
        run = await client.workflow_runs.retrieve(RUN)

    extract, rules = run.step_runs
    assert extract.step_type == extract.step.type == "EXTRACT"
    evidence = extract.result.extract_run.output.metadata["amount"]
    assert evidence.citations[0].page.number == 1
    assert evidence.citations[0].file_id == run.files[0].id
    assert rules.step_type == rules.step.type == "RULE_VALIDATION"
    assert rules.result.all_passed


async def test_metadata_makes_the_round_trip():
    first = {"text": "é ☃", "number": 1.5, "none": None, "list": [1, {"a": []}], "map": {"x": 1}}

    async with vendor_client() as (client, _):
        await client.workflow_runs.update(RUN, metadata=first)
        updated = await client.workflow_runs.update(RUN, metadata={"number": 2, "flag": True})
        retrieved = await client.workflow_runs.retrieve(RUN)

    assert updated.metadata == retrieved.metadata == {**first, "number": 2, "flag": True}


async def test_the_synchronous_client_works_too():
    async with sandboxed(api="2026-02-09") as box:

        def update_and_retrieve():
            with httpx.Client() as http:
                client = extend_ai.Extend(
                    token="sandbox-token", base_url=box.url, httpx_client=http
                )
                client.workflow_runs.update(RUN, name="n", metadata={"a": 1})
                return client.workflow_runs.retrieve(RUN)

        run = await asyncio.to_thread(update_and_retrieve)

    assert (run.id, run.metadata) == (RUN, {"a": 1})


async def test_an_update_that_is_not_valid_is_a_bad_request():
    async with vendor_client() as (client, _):
        with pytest.raises(extend_ai.errors.BadRequestError) as caught:
            await client.workflow_runs.update(RUN, metadata=None, request_options=ONCE)

    body = caught.value.body
    assert (body["code"], body["retryable"]) == ("INVALID_REQUEST", False)
    assert body["requestId"] == caught.value.headers["x-extend-request-id"]


async def test_a_wrong_token_is_unauthorized():
    async with vendor_client(token="not-the-token") as (client, _):
        with pytest.raises(extend_ai.errors.UnauthorizedError) as caught:
            await client.workflow_runs.update(RUN, name="n", request_options=ONCE)

    assert caught.value.body["code"] == "UNAUTHORIZED"


async def test_a_run_that_does_not_exist_is_not_found():
    async with vendor_client(strict=True) as (client, _):
        with pytest.raises(extend_ai.errors.NotFoundError) as updating:
            await client.workflow_runs.update(RUN, name="n", request_options=ONCE)
        with pytest.raises(extend_ai.errors.NotFoundError) as retrieving:
            await client.workflow_runs.retrieve(RUN, request_options=ONCE)

    assert updating.value.body["code"] == retrieving.value.body["code"] == "NOT_FOUND"


async def test_a_refused_patch_is_unprocessable():
    async with vendor_client() as (client, _):
        with pytest.raises(extend_ai.errors.UnprocessableEntityError) as caught:
            await client.workflow_runs.update(
                RUN, metadata={"sandbox_refuse": True}, request_options=ONCE
            )

    body = caught.value.body
    assert (body.code, body.retryable) == ("INVALID_REQUEST", False)
    assert body.request_id.startswith("req_")


async def test_over_the_limit_it_is_too_many_requests():
    async with vendor_client(rate=1) as (client, _):
        await client.workflow_runs.update(RUN, name="n", request_options=ONCE)
        with pytest.raises(extend_ai.errors.TooManyRequestsError) as caught:
            await client.workflow_runs.update(RUN, name="n", request_options=ONCE)

    assert caught.value.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "UnauthorizedError"),
        (402, "PaymentRequiredError"),
        (403, "ForbiddenError"),
        (404, "NotFoundError"),
        (422, "UnprocessableEntityError"),
        (429, "TooManyRequestsError"),
        (500, "InternalServerError"),
        (503, "ApiError"),
    ],
)
async def test_every_status_raises_the_class_that_the_client_has_for_it(status, name):
    from extend_ai.core.api_error import ApiError

    kind = getattr(extend_ai.errors, name, ApiError)
    async with vendor_client() as (client, _):
        with pytest.raises(kind) as caught:
            await client.workflow_runs.update(f"{RUN}~{status}", name="n", request_options=ONCE)

    assert type(caught.value) is kind
    assert caught.value.status_code == status


async def test_it_retries_by_itself_once_the_limit_allows():
    async with vendor_client(rate=1) as (client, box):
        await client.workflow_runs.update(RUN, metadata={"a": 1})
        run = await client.workflow_runs.update(RUN, metadata={"b": 2})
        stats = await box.stats()

    assert run.metadata == {"a": 1, "b": 2}
    assert stats["by_status"] == {"200": 2, "429": 1}
