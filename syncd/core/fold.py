"""Several waiting patches of one run as one request, where the result is provably the same.

The vendor documents that incoming metadata takes precedence over what is there, but neither how
deep it merges nor what null does. The rule here is right under all four readings: shallow or deep,
null stored or null deletes. A later patch that gives an object or an array to a key that an earlier
one has set must not be folded into it: the *barrier*.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import orjson

MAX_BODY_METADATA = 10_240  # bytes; what the vendor documents for metadata at a run's creation
MAX_MEMBERS = 100  # one answer settles them all in one transaction


class Waiting(msgspec.Struct, frozen=True):
    """A patch in the outbox, as far as sending it needs."""

    id: int
    name: str | None
    metadata: str | None
    """The text of a JSON object, numbers as the producer wrote them."""
    created_at: float = 0.0
    leaves_out: frozenset[str] = frozenset()
    """Keys that newer patches have set since it was first refused; see `NAME` for the name."""
    priority: int = 0
    readable: bool = True
    """False if the stored text is not UTF-8; what is here of it is a makeshift."""


NAME = "\udcffname"  # stands for the name in `leaves_out`; a lone surrogate is in no JSON key


class Barrier(StrEnum):
    """Why a patch was not folded into the request before it."""

    VALUE = "gives an object or an array to a key that an earlier patch sets"
    SIZE = "would take the metadata over the size limit"
    COUNT = "the request holds as many patches as one may"
    ALONE = "is sent alone, because a request with several patches was refused"
    OFF = "folding is switched off"
    TEXT = "its metadata cannot be taken apart"
    UNREAD = "lies beyond what is read of one run at a time"


class Fold(msgspec.Struct, frozen=True):
    """One request: its body and the patches it carries, oldest first."""

    ids: tuple[int, ...]
    body: bytes
    barrier: Barrier | None = None
    """What stopped the next patch; None if there was no next one."""
    key: str | None = None
    """The key that the barrier stands at, for Barrier.VALUE."""


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def fold(waiting: Sequence[Waiting], behind_first: Barrier | None = None) -> Fold:
    """The first request for patches of one run, given oldest first and not empty.

    `behind_first` is the barrier there if only the first may go.
    """
    first = waiting[0]
    if len(waiting) == 1 or behind_first is not None:
        return Fold((first.id,), body_of(first), behind_first if len(waiting) > 1 else None)
    try:
        name, values = kept(first)
    except ValueError:
        return Fold((first.id,), body_of(first), Barrier.TEXT)
    has_metadata = first.metadata is not None
    barrier, key, taken = None, None, 1
    size = _size(values)
    for patch in waiting[1:]:
        try:
            newer_name, newer = kept(patch)
        except ValueError:
            barrier = Barrier.TEXT
            break
        if taken == MAX_MEMBERS:
            barrier = Barrier.COUNT
            break
        key = _barrier_key(values, newer)
        if key is not None:
            barrier = Barrier.VALUE
            break
        merged = values | newer
        size = _size(merged)
        if size > MAX_BODY_METADATA:
            barrier = Barrier.SIZE
            break
        values, taken = merged, taken + 1
        has_metadata = has_metadata or patch.metadata is not None
        name = name if newer_name is None else newer_name
    if taken == 1:
        return Fold((first.id,), body_of(first), barrier, key)
    ids = tuple(patch.id for patch in waiting[:taken])
    return Fold(ids, _body(name, values if has_metadata else None), barrier, key)


def body_of(patch: Waiting) -> bytes:
    """The request for one patch: its metadata goes out as the producer's own text.

    Raises ValueError if the stored text is not what can be sent.
    """
    if patch.leaves_out or not patch.readable:
        name, values = kept(patch)
        return _body(name, values if patch.metadata is not None else None)
    parts = []
    if patch.name is not None:
        parts.append(b'"name":' + orjson.dumps(patch.name))
    if patch.metadata is not None:
        parts.append(b'"metadata":' + patch.metadata.encode())
    return b"{" + b",".join(parts) + b"}"


def keys_of(name: str | None, metadata: str | None) -> frozenset[str]:
    """What a patch sets: its metadata's top-level keys, and `NAME` if it sets the name.

    Raises ValueError if the metadata cannot be taken apart.
    """
    keys = frozenset(_apart(metadata)) if metadata is not None else frozenset()
    return keys | {NAME} if name is not None else keys


def _apart(metadata: str) -> dict[str, msgspec.Raw]:
    """The values by key, each as its own text. ValueError where that cannot be had."""
    try:
        return _decode_object(metadata)
    except RecursionError as error:  # SQLite allows nesting deeper than the interpreter does
        raise ValueError("metadata is nested too deeply to be taken apart") from error


def kept(patch: Waiting) -> tuple[str | None, dict[str, msgspec.Raw]]:
    """The name and the metadata's values that a patch is sent with: without what it leaves out.

    Raises ValueError if the stored text is not a JSON object in UTF-8.
    """
    if not patch.readable:
        raise ValueError(f"patch {patch.id} is not UTF-8")
    values = _apart(patch.metadata) if patch.metadata is not None else {}
    if not patch.leaves_out:
        return patch.name, values
    name = None if NAME in patch.leaves_out else patch.name
    return name, {key: value for key, value in values.items() if key not in patch.leaves_out}


def _barrier_key(older: dict[str, msgspec.Raw], newer: dict[str, msgspec.Raw]) -> str | None:
    for key, value in newer.items():
        if key in older and bytes(value)[:1] in (b"{", b"["):
            return key
    return None


def _body(name: str | None, values: dict[str, msgspec.Raw] | None) -> bytes:
    fields: dict[str, object] = {}
    if name is not None:
        fields["name"] = name
    if values is not None:
        fields["metadata"] = {key: orjson.Fragment(bytes(raw)) for key, raw in values.items()}
    return orjson.dumps(fields)


def _size(values: dict[str, msgspec.Raw]) -> int:
    """Bytes of the metadata as `_body` writes it, keys counted by their UTF-8."""
    fields = sum(len(orjson.dumps(key)) + len(bytes(raw)) + 2 for key, raw in values.items())
    return max(2, 1 + fields)
