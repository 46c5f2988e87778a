"""What came back from the vendor, before anything is made of it; and the WorkflowRun inside."""

from contextlib import suppress
from dataclasses import dataclass

import msgspec

from syncd.core.mend import mended


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer, whole."""

    status: int
    body: bytes
    retry_after: str | None = None
    """The Retry-After header as sent; several are one list."""
    request_id: str | None = None
    """The x-extend-request-id header."""
    date: str | None = None
    """The Date header: the server's own clock, which a Retry-After date is meant by."""


@dataclass(frozen=True, slots=True)
class NoReply:
    """No answer, or none that could be read to its end."""

    cause: str
    """A short code: `timeout`, `connect`, `dns`, `tls`, `reset`, `too_large`, `redirect` …"""
    message: str
    ambiguous: bool
    """Whether the request may have reached the vendor, and may have been applied."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was sent: while the request connected, the gate was shut."""


# As with patches: a frozen dataclass takes five times as long to make.
class Run(msgspec.Struct, frozen=True, gc=False):
    """A WorkflowRun as the vendor sent it, with what is searched for beside it."""

    id: str
    raw: bytes
    """The object's own JSON text, without the wrapper of older API versions, and fit to be read."""
    status: str | None
    name: str | None
    metadata: str | None
    """The JSON text of the metadata object."""


@dataclass(frozen=True, slots=True)
class VendorError:
    """An error body, in whichever of the three documented shapes it came."""

    code: str | None = None
    message: str | None = None
    retryable: bool | None = None
    request_id: str | None = None


class _RunFields(msgspec.Struct):
    id: str = ""
    object: str = "workflow_run"
    status: msgspec.Raw = msgspec.Raw(b"null")
    name: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(_RunFields):
    success: bool = True
    workflowRun: msgspec.Raw = msgspec.Raw()  # noqa: N815 (the vendor's own spelling)


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_run = msgspec.json.Decoder(_RunFields).decode
_WRAPPED = b'{"success":true,"workflowRun":'


def run_in(body: bytes) -> Run | None:
    """The WorkflowRun in the body of a 2xx, bare or wrapped; None if there is none.

    `success: false` is not an answer with a run, whatever else is in it. Half a character in a run,
    such as a text that was cut short leaves behind, is no reason to doubt it: it becomes U+FFFD.
    """
    try:
        body.decode()  # msgspec looks only at the fields that it decodes
        return _run_in(body)
    except (ValueError, RecursionError):
        pass
    try:
        return _run_in(whole) if (whole := mended(body)) is not body else None
    except (ValueError, RecursionError):
        return None


def _run_in(body: bytes) -> Run | None:
    if body.startswith(_WRAPPED) and body.endswith(b"}"):
        # So the older generations answer. If this is all, the run is parsed without the wrapper.
        with suppress(ValueError):
            return _run(_decode_run(raw := body[len(_WRAPPED) : -1]), raw)
    answer = _decode_answer(body)
    if not answer.success:
        return None
    if wrapped := bytes(answer.workflowRun):
        return _run(_decode_run(wrapped), wrapped)
    return _run(answer, body)


def _run(fields: _RunFields, raw: bytes) -> Run | None:
    if not fields.id or fields.object != "workflow_run":
        return None
    metadata = bytes(fields.metadata)
    return Run(
        fields.id,
        raw,
        _text(fields.status),
        _text(fields.name),
        metadata.decode() if metadata.startswith(b"{") else None,
    )


def error_in(body: bytes) -> VendorError:
    """What an error body says: `{code, message …}`, `{"error": {…}}`, `{"error": "text"}`, or text.

    Plain text and HTML (a proxy's page) come back as the message, shortened to one line.
    """
    try:
        decoded = _decoded(body)
    except (ValueError, RecursionError):
        return VendorError(message=_one_line(body.decode(errors="replace")))
    if not isinstance(decoded, dict):
        return VendorError(message=_one_line(str(decoded)))
    inner = decoded.get("error", decoded)
    if not isinstance(inner, dict):
        return VendorError(message=_one_line(str(inner)) if inner else None)
    retryable = inner.get("retryable")
    return VendorError(
        code=_string(inner.get("code")),
        message=_string(inner.get("message")),
        retryable=retryable if isinstance(retryable, bool) else None,
        request_id=_string(inner.get("requestId")),
    )


def is_error(body: bytes) -> bool:
    """Whether a body has one of the documented shapes of an error, not only something to read.

    Any server has an answer of its own for an address that it does not know: a page, a text, or
    other JSON.
    """
    try:
        decoded = _decoded(body)
    except (ValueError, RecursionError):
        return False
    match decoded:
        case {"code": str(), "message": str()} | {"error": {"code": str(), "message": str()}}:
            return True
        case {"success": False, "error": str()}:
            return True
        case {"error": str(), **others}:
            return not others
    return False


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except ValueError:
        if (whole := mended(body)) is body:
            raise
        return msgspec.json.decode(whole)


def _text(raw: msgspec.Raw) -> str | None:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else None


def _string(value: object) -> str | None:
    return _one_line(value) if isinstance(value, str) and value else None


def _one_line(text: str, most: int = 300) -> str | None:
    line = " ".join(text.split())
    return line[: most - 1] + "…" if len(line) > most else line or None
