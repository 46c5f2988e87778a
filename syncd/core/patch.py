"""What a patch is: the one place that says yes, or no with a reason."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec
import orjson

MAX_RUN_ID = 255  # characters
MAX_NAME_BYTES = 10_240  # the vendor documents no limit; ours is for what we hold at once
MAX_KEY = 255  # characters
MAX_METADATA_BYTES = 10_240  # as compact UTF-8 JSON; the vendor's limit at a run's creation
MAX_METADATA_DEPTH = 500  # SQLite's JSON functions stop at 1,000, orjson at 1,024
MIN_PRIORITY, MAX_PRIORITY = -(1 << 63), (1 << 63) - 1

FIELDS = ("workflow_run_id", "name", "metadata", "idempotency_key", "priority")


# A frozen dataclass takes far longer to make, and the garbage collector walks through all of them.
class Patch(msgspec.Struct, frozen=True, gc=False):
    """A name, metadata or both for one WorkflowRun."""

    workflow_run_id: str
    name: str | None = None
    metadata: str | None = None
    """The text of a JSON object, as its producer wrote it: parsing it would change its numbers."""
    idempotency_key: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why something is not a patch, in one line."""

    reason: str


def parse(raw: bytes) -> Patch | Invalid:
    """The patch that the text of one JSON object holds. Never raises, whatever the bytes.

    orjson checks the whole text strictly (UTF-8, lone surrogates, NaN, numbers that no double can
    hold), and msgspec cuts the metadata's own text out, which it does not check.
    """
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Invalid(_syntax(raw, error))
    if type(fields) is not dict:
        return Invalid(f"a patch must be a JSON object, not {_kind(fields)}")
    if not _KNOWN.issuperset(fields):
        return Invalid(_unknown(next(field for field in fields if field not in _KNOWN)))
    run_id: Any = fields.get("workflow_run_id")
    name = fields.get("name")
    key = fields.get("idempotency_key")
    priority = fields.get("priority", 0)
    reason = _values(run_id, name, key, priority)
    if reason is not None:
        return Invalid(reason)
    metadata = fields.get("metadata")
    if metadata is not None and type(metadata) is not dict:
        return Invalid(f"metadata must be a JSON object, not {_kind(metadata)}")
    try:
        written = bytes(_cut(raw).metadata)
        strings = 1 + (name is not None) + (key is not None)
        # Every key and every string outside the metadata is two quotation marks. If there are more,
        # a field is repeated or a mark is escaped, and only then is it worth a slow look.
        if raw.count(b'"') - written.count(b'"') != 2 * (len(fields) + strings):
            repeated = _repeated(raw)
            if repeated is not None:
                return Invalid(f"{quoted(repeated)} is given twice")
    except RecursionError:
        return Invalid(_TOO_DEEP)
    if metadata is None:
        return Invalid(_EMPTY) if name is None else Patch(run_id, name, None, key, priority)
    text = _fitting(written)
    if isinstance(text, Invalid):
        return text
    return Patch(run_id, name, text.decode(), key, priority)


def fit(patch: Patch) -> Patch | Invalid:
    """A patch made of other things than one JSON text, as the outbox takes it."""
    values = (patch.workflow_run_id, patch.name, patch.idempotency_key)
    reason = _values(*values, patch.priority)
    if reason is not None:
        return Invalid(reason)
    if not _is_unicode("".join(filter(None, values))):
        return Invalid("workflow_run_id, name or idempotency_key is not valid Unicode")
    if patch.metadata is None:
        return Invalid(_EMPTY) if patch.name is None else patch
    try:
        text = patch.metadata.encode()
        metadata = orjson.loads(text)
    except UnicodeEncodeError:
        return Invalid("metadata is not valid Unicode")
    except orjson.JSONDecodeError as error:
        return Invalid(f"metadata: {_syntax(text, error)}")
    if type(metadata) is not dict:
        return Invalid(f"metadata must be a JSON object, not {_kind(metadata)}")
    fitting = _fitting(text)
    if isinstance(fitting, Invalid):
        return fitting
    if fitting is text:
        return patch
    return msgspec.structs.replace(patch, metadata=fitting.decode())


def check(patch: Patch) -> str | None:
    """Why the outbox would refuse the patch just as it is, or None."""
    fitted = fit(patch)
    if isinstance(fitted, Invalid):
        return fitted.reason
    return _TOO_LONG if fitted is not patch else None


def nearest(field: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown field: what was probably meant, or what there is."""
    known = tuple(known)
    close = get_close_matches(field[:60], known, n=1)  # it notes the place of each character
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"


def quoted(text: str) -> str:
    """A piece of somebody's input, fit for a one-line reason."""
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}…", ensure_ascii=False)


def compact(text: bytes, most: int | None = None) -> bytes:
    """The same JSON in fewer bytes: no whitespace, no needless escapes; numbers stay as written.

    If that takes more than `most` bytes, what comes back is longer than `most`, and cut off.
    """
    # One buffer, and no piece is kept: what orjson makes of a string of one letter takes 4 KiB.
    shorter = bytearray()
    behind = 0
    for match in _STRING_OR_SPACE.finditer(text):
        shorter += text[behind : match.start()]
        behind = match.end()
        token = match[0]
        if token[0] == _MARK:
            shorter += orjson.dumps(orjson.loads(token)) if b"\\" in token else token
        if most is not None and len(shorter) > most:
            return bytes(shorter)
    shorter += text[behind:]
    return bytes(shorter)


class _Cut(msgspec.Struct, gc=False):
    """Takes the metadata's own text out of a patch; skips everything else."""

    metadata: msgspec.Raw = msgspec.Raw(b"")


_cut = msgspec.json.Decoder(_Cut).decode
_pairs = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str).decode

_KNOWN = frozenset(FIELDS)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
# Possessive: what could be given back again would be remembered, escape by escape.
_STRING_OR_SPACE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[ \t\r\n]++')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_MARK = ord('"')

_EMPTY = "a patch needs a name or metadata"
_TOO_LONG = f"metadata must be at most {MAX_METADATA_BYTES} bytes"
_TOO_DEEP = f"metadata must not be nested deeper than {MAX_METADATA_DEPTH} levels"


def _values(run_id: Any, name: Any, key: Any, priority: Any) -> str | None:
    """Why the fields that are no JSON are not those of a patch, or None."""
    if run_id is None:
        return "workflow_run_id is missing"
    if type(run_id) is not str:
        return f"workflow_run_id must be a string, not {_kind(run_id)}"
    if not 0 < len(run_id) <= MAX_RUN_ID:
        return f"workflow_run_id must be 1 to {MAX_RUN_ID} characters"
    if not run_id.isprintable() and _CONTROL.search(run_id):
        return "workflow_run_id must not contain control characters"
    if run_id in {".", ".."}:
        return "workflow_run_id must not be . or .."
    if name is not None:
        if type(name) is not str:
            return f"name must be a string, not {_kind(name)}"
        if "\0" in name:
            return "name must not contain NUL"
        if len(name) > MAX_NAME_BYTES // 4 and _size(name) > MAX_NAME_BYTES:
            return f"name must be at most {MAX_NAME_BYTES} bytes"
    if key is not None:
        if type(key) is not str:
            return f"idempotency_key must be a string, not {_kind(key)}"
        if not 0 < len(key) <= MAX_KEY:
            return f"idempotency_key must be 1 to {MAX_KEY} characters"
        if "\0" in key:
            return "idempotency_key must not contain NUL"
    if type(priority) is not int or not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        return "priority must be an integer of at most 64 bits"
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, which undecodable arguments of a command become
        return False
    return True


def _size(text: str) -> int:
    """Bytes as UTF-8, whatever is in it."""
    return len(text.encode(errors="surrogatepass"))


def _fitting(text: bytes) -> bytes | Invalid:
    """The text of a JSON object as it may be stored, the very same unless it is too long."""
    if len(text) > MAX_METADATA_BYTES:
        text = compact(text, MAX_METADATA_BYTES)
        if len(text) > MAX_METADATA_BYTES:
            return Invalid(_TOO_LONG)
    brackets = text.count(b"{") + text.count(b"[")
    if brackets > MAX_METADATA_DEPTH and _depth(text) > MAX_METADATA_DEPTH:
        return Invalid(_TOO_DEEP)
    return text


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for byte in _STRING.sub(b"", text):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _repeated(raw: bytes) -> str | None:
    """A field that is given twice; parsers keep the last one without a word."""
    seen: set[str] = set()
    for field, _ in _pairs(raw.decode()):
        if field in seen:
            return str(field)
        seen.add(field)
    return None


def _unknown(field: str) -> str:
    return f"unknown field {quoted(field)}: {nearest(field, FIELDS)}"


def _syntax(raw: bytes, error: json.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as undecodable:
        return f"not valid UTF-8 at byte {undecodable.start + 1}"
    return f"not valid JSON at character {error.pos + 1}: {error.msg}"


def _kind(value: object) -> str:
    """The JSON word for a decoded value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
