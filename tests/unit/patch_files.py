"""Files of patches, and what reading makes of their bytes."""

import io
import json

import pytest

from syncd.core.patch import Patch
from syncd.formats import (
    Format,
    Kind,
    Unreadable,
    chunks,
)

JSON, JSONL, CSV = Format(Kind.JSON), Format(Kind.JSONL), Format(Kind.CSV)
ZIPPED = {kind: Format(kind, gz=True) for kind in Kind}
MIB = 1 << 20


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time: every piece is cut in every place."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step if size is None or size < 0 else min(size, self._step))


def taken(
    data: bytes, kind: Format, *, step: int = 1 << 30, **how
) -> tuple[list[Patch], list[tuple[int, str]]]:
    """All patches of a file, and line and reason of what is none."""
    found = list(chunks(Trickle(data, step), kind, **how))
    assert [chunk.last for chunk in found] == [False] * (len(found) - 1) + [True]
    return (
        [patch for chunk in found for patch in chunk.patches],
        [(reject.line, reject.reason) for chunk in found for reject in chunk.rejects],
    )


def unreadable(data: bytes, kind: Format, **how) -> str:
    with pytest.raises(Unreadable) as caught:
        list(chunks(io.BytesIO(data), kind, **how))
    return str(caught.value)


def row(n: int, **fields: object) -> bytes:
    return json.dumps({"workflow_run_id": f"r{n}", "name": "n", **fields}).encode()


def spaced(text: bytes, size: int) -> bytes:
    """The same object, with white space to that many bytes."""
    return text[:-1] + b" " * (size - len(text)) + b"}"


def of(n: int) -> Patch:
    return Patch(f"r{n}", "n")
