"""The runs and their merge: four models, because the vendor's documents leave depth and null open.

Metadata is kept as the text of its values, so that a number comes back exactly as it was written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import orjson

Fields = Mapping[str, bytes]  # the keys of a JSON object, each with the text of its value

_SPLIT = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Run:
    """What clients may set of a run; the rest of its answer is made up from its id."""

    name: str | None = None
    metadata: Fields = field(default_factory=dict)


class Runs:
    """All runs that were ever updated, by id; `changes` grows with each update."""

    def __init__(self, known: Mapping[str, Run]) -> None:
        self._runs = dict(known)
        self.changes = 0

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __iter__(self) -> Iterator[tuple[str, Run]]:
        return iter(self._runs.items())

    def get(self, run_id: str) -> Run:
        """The run, or a bare one where nobody has updated it yet."""
        return self._runs.get(run_id, _BARE)

    def put(self, run_id: str, run: Run) -> None:
        """Keep the run in its new state."""
        self._runs[run_id] = run
        self.changes += 1


def overlay(older: Fields, newer: Fields, *, deep: bool, null_deletes: bool) -> dict[str, bytes]:
    """`older` with `newer` merged into it, the newer value winning.

    Deep: objects are merged key by key (with `null_deletes` as RFC 7386 has it), arrays replaced.
    RecursionError where objects are nested deeper than the interpreter goes.
    """
    merged = dict(older)
    for key, value in newer.items():
        if null_deletes and value == b"null":
            merged.pop(key, None)
        elif deep and value.startswith(b"{"):
            there = merged.get(key, b"{}")
            inner = split(there) if there.startswith(b"{") else {}
            merged[key] = join(overlay(inner, split(value), deep=deep, null_deletes=null_deletes))
        else:
            merged[key] = value
    return merged


def split(text: bytes) -> dict[str, bytes]:
    """The fields of a compact JSON object."""
    return {key: bytes(value) for key, value in _SPLIT.decode(text).items()}


def join(fields: Fields) -> bytes:
    """The compact JSON object with these fields."""
    return orjson.dumps({key: orjson.Fragment(value) for key, value in fields.items()})


_BARE = Run()
