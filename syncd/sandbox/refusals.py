"""The vendor's refusals, each in the error body of its generation."""

from dataclasses import dataclass

import orjson

from syncd.sandbox.settings import Api

_CODES = {
    401: "UNAUTHORIZED",
    402: "USAGE_BLOCKED",
    403: "FORBIDDEN",  # the vendor's own code for it is not documented
    404: "NOT_FOUND",
    410: "ENDPOINT_REMOVED",  # the code is documented, its status is not
    429: "RATE_LIMIT_EXCEEDED",
}
_MESSAGES = {
    401: "The API key is missing, malformed or not valid.",
    402: "Usage is blocked for this organization.",
    403: "This API key may not do this.",
    404: "The workflow run was not found.",
    410: "This endpoint was removed.",
    429: "Rate limit exceeded. Slow down and try again.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status with the code that stands for it and a sentence for people."""

    status: int
    code: str
    message: str
    retryable: bool


def refusal(status: int, message: str = "") -> Refusal:
    """The refusal for a status, with the documented code where there is one."""
    retryable = status >= 500 or status in (408, 409, 425, 429)
    code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "INVALID_REQUEST")
    fallback = "Something went wrong." if status >= 500 else "The request is not valid."
    return Refusal(status, code, message or _MESSAGES.get(status, fallback), retryable)


def error_body(api: str, refused: Refusal, request_id: str) -> bytes:
    """2026-02-09 answers a bare object, the generations before it `{success, error}`."""
    if api != Api.V2026:
        return orjson.dumps({"success": False, "error": refused.message})
    body = {"code": refused.code, "message": refused.message, "retryable": refused.retryable}
    # The documented 429 is the one example without a request id.
    return orjson.dumps(body if refused.status == 429 else {**body, "requestId": request_id})
