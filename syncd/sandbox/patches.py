"""From the body of an update to a run's next state, or to the reason why the vendor refuses it."""

import re
from dataclasses import dataclass

import msgspec
import orjson

from syncd.sandbox.refusals import Refusal, refusal
from syncd.sandbox.runs import Fields, Run, join, overlay
from syncd.sandbox.settings import Api, Merge, Null, SandboxSettings

USAGE_TAGS = "extend:usage_tags"
REFUSED_KEY = "sandbox_refuse"


@dataclass(frozen=True, slots=True)
class Patch:
    """What an update asks for; None where it says nothing."""

    name: str | None = None
    metadata: Fields | None = None


def read_patch(body: bytes, settings: SandboxSettings) -> Patch | Refusal:
    """The patch in a request body. Metadata with the key `sandbox_refuse` is refused with a 422."""
    try:
        body.decode()
        # Made compact, values lose the sender's layout and are otherwise kept as written.
        asked = _BODY.decode(msgspec.json.format(body, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return refusal(settings.invalid_status, f"The body is not an update: {error}")
    except RecursionError:
        return refusal(settings.invalid_status, "The body is nested too deeply.")
    if settings.refuse_null and (asked.name is None or asked.metadata is None):
        return refusal(settings.invalid_status, "name and metadata may be left out, not be null.")
    patch = Patch(
        name=asked.name if isinstance(asked.name, str) else None,
        metadata=_texts(asked.metadata) if isinstance(asked.metadata, dict) else None,
    )
    return _objection(patch, settings) or patch


def apply_patch(run: Run, patch: Patch, settings: SandboxSettings) -> Run | Refusal:
    """The run as the patch leaves it, under the merge model of the settings."""
    name = run.name if patch.name is None else patch.name
    if patch.metadata is None:
        return Run(name, run.metadata)
    newer = patch.metadata
    if USAGE_TAGS in newer and settings.api in (Api.V2025, Api.V2026):
        newer = {**newer, USAGE_TAGS: _clean_tags(newer[USAGE_TAGS])}
    try:
        merged = overlay(
            run.metadata,
            newer,
            deep=settings.merge == Merge.DEEP,
            null_deletes=settings.null == Null.DELETE,
        )
    except RecursionError:
        return refusal(settings.invalid_status, "The metadata is nested too deeply.")
    measured = newer if settings.metadata_limit_on_patch else merged
    if settings.metadata_limit and len(join(measured)) > settings.metadata_limit:
        text = f"The metadata is larger than {settings.metadata_limit} bytes."
        return refusal(settings.invalid_status, text)
    return Run(name, merged)


class _Body(msgspec.Struct):
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_BODY = msgspec.json.Decoder(_Body)
_TAGS = msgspec.json.Decoder(list[str])


def _texts(metadata: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in metadata.items()}


def _objection(patch: Patch, settings: SandboxSettings) -> Refusal | None:
    if settings.refuse_empty and patch == Patch():
        return refusal(settings.invalid_status, "The body sets neither name nor metadata.")
    if settings.name_limit and len(patch.name or "") > settings.name_limit:
        text = f"The name is longer than {settings.name_limit} characters."
        return refusal(settings.invalid_status, text)
    if patch.metadata is not None and REFUSED_KEY in patch.metadata:
        return refusal(422, f"The metadata has the key {REFUSED_KEY}.")
    return None


def _clean_tags(text: bytes) -> bytes:
    """Tags without the characters that the vendor's documents say are removed in silence."""
    try:
        tags = _TAGS.decode(text)
    except msgspec.ValidationError:
        return text
    return orjson.dumps([re.sub(r"[^A-Za-z0-9_-]", "", tag) for tag in tags])
