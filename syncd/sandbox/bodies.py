"""The WorkflowRun answers of every generation, with the fields that its documents list.

The values are made up from the run's id: the same id always gets the same answer.
"""

from functools import lru_cache
from zlib import crc32

import orjson

from syncd.sandbox.extraction import Facts, facts, output
from syncd.sandbox.settings import Api

IN_PROGRESS = frozenset({"PENDING", "PROCESSING", "CANCELLING"})
_STATUSES: dict[str, tuple[str, ...]] = {
    Api.V1: ("PENDING", "FAILED", "NEEDS_REVIEW", "REVIEWED", "PROCESSED"),
    Api.V2024: ("PENDING", "PROCESSING", "FAILED", "NEEDS_REVIEW", "REVIEWED", "PROCESSED"),
}
_LATER_STATUSES = (
    *("PENDING", "PROCESSING", "NEEDS_REVIEW", "REJECTED"),
    *("PROCESSED", "FAILED", "CANCELLED", "CANCELLING"),
)
_REVIEWED = frozenset({"PROCESSED", "REVIEWED", "REJECTED"})
_FAILURE = ("INTERNAL_ERROR", "An unexpected error occurred while processing the file.")
_WORKFLOW_ID = "workflow_1234"
_WORKFLOW_NAME = "Invoices"
_DASHBOARD = "https://dashboard.extend.ai"
_REVIEWER = "reviewer@example.com"


def status_of(api: str, run_id: str) -> str:
    """A run's status: `~STATUS` in its id chooses one, else most are PROCESSED."""
    statuses = _STATUSES.get(api, _LATER_STATUSES)
    if "~" in run_id:
        for status in sorted(statuses, key=len, reverse=True):
            if f"~{status}" in run_id:
                return status
    in_progress = "PENDING" if api == Api.V1 else "PROCESSING"
    return (in_progress, "NEEDS_REVIEW", *["PROCESSED"] * 4)[crc32(run_id.encode()) % 6]


def workflow_run(
    api: str, run_id: str, name: str | None, metadata: bytes, *, show_name: bool = True
) -> bytes:
    """The whole body of a 200; `metadata` is the text of a JSON object and goes in as it is."""
    run = {**_template(api, run_id), "metadata": orjson.Fragment(metadata)}
    if api == Api.V2026:
        return orjson.dumps(run)
    if show_name:
        run["name"] = name
    else:
        del run["name"]
    return orjson.dumps({"success": True, "workflowRun": run})


@lru_cache(maxsize=4096)
def _template(api: str, run_id: str) -> dict[str, object]:
    """The parts of an answer that updates do not change, the long ones as ready JSON."""
    status = status_of(api, run_id)
    of = facts(run_id)
    match api:
        case Api.V2026:
            run = _run_2026(run_id, status, of)
        case Api.V2025:
            run = _run_2025(run_id, status, of)
        case _:
            run = _run_2024(run_id, status, of)
    return {
        key: orjson.Fragment(orjson.dumps(value)) if isinstance(value, list | dict) else value
        for key, value in run.items()
    }


def _run_2024(run_id: str, status: str, of: Facts) -> dict[str, object]:
    reviewed = {"reviewedBy": "user_1234", "reviewedAt": of.reviewed}
    return {
        "object": "workflow_run",
        "id": run_id,
        "name": None,
        "batchId": f"batch_{of.ids[0][:8]}",
        "status": status,
        "url": _url(run_id),
        "metadata": {},
        "initialRunAt": of.created,
        **({"failureMessage": _FAILURE[1]} if status == "FAILED" else {}),
        **(reviewed if status in _REVIEWED else {}),
        "startTime": of.started,
        **({} if status in IN_PROGRESS else {"endTime": of.ended}),
        "files": [{"object": "file", "id": f"file_{of.ids[1]}", "name": "example_file_name.pdf"}],
        "outputs": [
            {
                "object": "document_processor_run",
                "id": f"dpr_{of.ids[2]}",
                "edited": False,
                "type": "EXTRACT",
                **_outputs(output(of), status),
            }
        ],
        "stepRuns": [_step_2025(status, of)],
        "workflow": _workflow(),
    }


def _run_2025(run_id: str, status: str, of: Facts) -> dict[str, object]:
    failed = {"failureReason": _FAILURE[0], "failureMessage": _FAILURE[1]}
    rejected = {"rejectionNote": "Invalid invoice format"}
    return {
        "object": "workflow_run",
        "id": run_id,
        "name": None,
        "url": _url(run_id),
        "status": status,
        "metadata": {},
        "batchId": f"batch_{of.ids[0][:8]}",
        "files": [_file(of)],
        **(failed if status == "FAILED" else {}),
        "initialRunAt": of.created,
        **({"reviewedBy": _REVIEWER, "reviewedAt": of.reviewed} if status in _REVIEWED else {}),
        "reviewed": status in _REVIEWED,
        **(rejected if status == "REJECTED" else {}),
        "startTime": of.started,
        **({} if status in IN_PROGRESS else {"endTime": of.ended}),
        "outputs": [
            {
                "object": "document_processor_run",
                "id": f"dpr_{of.ids[2]}",
                "processorId": "dp_1234",
                "processorVersionId": "dpv_1234",
                "processorName": "Invoice Extractor",
                "status": "PROCESSED",
                "reviewed": status in _REVIEWED,
                "edited": False,
                "edits": {},
                "type": "EXTRACT",
                "config": {"type": "EXTRACT", "baseProcessor": "extraction_performance"},
                **_outputs(output(of), status),
                "files": [_file(of)],
                "mergedProcessors": [],
                "url": f"{_DASHBOARD}/runs/dpr_{of.ids[2]}",
            }
        ],
        "stepRuns": [_step_2025(status, of)],
        "workflow": _workflow(),
        "usage": {"credits": 2 * of.pages},
    }


def _run_2026(run_id: str, status: str, of: Facts) -> dict[str, object]:
    file = _file(of)
    failed = status == "FAILED"
    reviewed = status in _REVIEWED
    return {
        "object": "workflow_run",
        "id": run_id,
        "workflow": {
            "object": "workflow",
            "id": _WORKFLOW_ID,
            "name": _WORKFLOW_NAME,
            "createdAt": "2024-11-05T08:00:00.000Z",
            "updatedAt": "2024-12-01T08:00:00.000Z",
        },
        "workflowVersion": {
            "object": "workflow_version",
            "id": "workflow_version_1234",
            "version": "1",
            "name": None,
            "createdAt": "2024-12-01T08:00:00.000Z",
        },
        "dashboardUrl": _url(run_id),
        "status": status,
        "metadata": {},
        "batchId": f"batch_{of.ids[0][:8]}",
        "files": [file],
        "failureReason": _FAILURE[0] if failed else None,
        "failureMessage": _FAILURE[1] if failed else None,
        "initialRunAt": of.created,
        "reviewedByUser": _REVIEWER if reviewed else None,
        "reviewed": reviewed,
        "rejectionNote": "Invalid invoice format" if status == "REJECTED" else None,
        "reviewedAt": of.reviewed if reviewed else None,
        "startTime": of.started,
        "endTime": None if status in IN_PROGRESS else of.ended,
        "stepRuns": [
            _step_2026(
                run_id, "EXTRACT", of.ids[3], file, {"extractRun": _extract_run(of, status, file)}
            ),
            _step_2026(
                run_id,
                "RULE_VALIDATION",
                of.ids[4],
                file,
                None if status in IN_PROGRESS else _rules(),
            ),
        ],
        "usage": {
            "credits": 2 * of.pages,
            "totalCredits": 2 * of.pages,
            "breakdown": [
                {
                    "object": "extract_run",
                    "id": f"exr_{of.ids[2]}",
                    "credits": 2 * of.pages,
                    "charges": [
                        {
                            "product": "extraction_performance",
                            "unit": "page",
                            "quantity": of.pages,
                            "credits": 2 * of.pages,
                        }
                    ],
                }
            ],
        },
    }


def _url(run_id: str) -> str:
    return f"{_DASHBOARD}/workflows/{_WORKFLOW_ID}?workflowRunId={run_id}"


def _workflow() -> dict[str, object]:
    return {"object": "workflow", "id": _WORKFLOW_ID, "version": "1", "name": _WORKFLOW_NAME}


def _file(of: Facts) -> dict[str, object]:
    return {
        "object": "file",
        "id": f"file_{of.ids[1]}",
        "name": "example_file_name.pdf",
        "type": "PDF",
        "metadata": {"pageCount": of.pages},
        "createdAt": of.created,
        "updatedAt": of.created,
    }


def _outputs(found: dict[str, object], status: str) -> dict[str, object]:
    if status in _REVIEWED:
        return {"initialOutput": found, "reviewedOutput": found, "output": found}
    return {"output": found}


def _extract_run(of: Facts, status: str, file: dict[str, object]) -> dict[str, object]:
    return {
        "object": "extract_run",
        "id": f"exr_{of.ids[2]}",
        "status": "PROCESSED",
        **_outputs(output(of, file_id=f"file_{of.ids[1]}"), status),
        "reviewed": status in _REVIEWED,
        "edited": False,
        "config": {"baseProcessor": "extraction_performance"},
        "file": file,
        "dashboardUrl": f"{_DASHBOARD}/runs/exr_{of.ids[2]}",
        "createdAt": of.started,
        "updatedAt": of.ended,
    }


def _step_2025(status: str, of: Facts) -> dict[str, object]:
    return {
        "object": "workflow_step_run",
        "id": f"workflow_step_run_{of.ids[4]}",
        "status": "PROCESSING" if status in IN_PROGRESS else "PROCESSED",
        "step": {
            "object": "workflow_step",
            "id": "step_2",
            "name": "Check totals",
            "type": "RULE_VALIDATION",
        },
        **({} if status in IN_PROGRESS else {"output": _rules()}),
    }


def _step_2026(
    run_id: str, kind: str, tail: str, file: dict[str, object], result: dict[str, object] | None
) -> dict[str, object]:
    """One step; readers look for its kind in `stepType` or in `step.type`, so both say it."""
    return {
        "object": "workflow_step_run",
        "id": f"workflow_step_run_{tail}",
        "workflowRunId": run_id,
        "status": "PROCESSED" if result else "PROCESSING",
        "files": [file],
        "stepType": kind,
        "step": {
            "object": "workflow_step",
            "id": "step_1" if kind == "EXTRACT" else "step_2",
            "name": "Extract invoice" if kind == "EXTRACT" else "Check totals",
            "type": kind,
        },
        "result": result,
    }


def _rules() -> dict[str, object]:
    return {"rules": [{"name": "Total is positive", "valid": True}], "allPassed": True}
