"""Reading on where one has stopped, and what cannot be read twice."""

import gzip
import io
import os
import threading

import pytest
from patch_files import CSV, JSON, JSONL, ZIPPED, row, taken, unreadable

from syncd.formats import (
    Format,
    Kind,
    Position,
    Unreadable,
    chunks,
    read,
)
from syncd.formats.chunk import MAX_PIECE

# Going on where one has stopped

MIXED = [row(n) if n % 5 else b"bad %d" % n for n in range(40)]
LONG = b'{"x":"' + b"y" * MAX_PIECE + b'"}'


def samples(*long: bytes) -> dict[str, tuple[bytes, Format]]:
    lines = b"\xef\xbb\xbf" + b"\r\n".join([*MIXED, b"", *long, *MIXED])
    array = (
        b" [" + b" ,\n".join([row(n) if n % 5 else b'"bad"' for n in range(40)] + [*long, row(7)])
        + b"\n]\n"
    )  # fmt: skip
    table = b'workflow_run_id,name,metadata:json.n\n' + b"".join(
        b'r%d,"a\n""b""",%d\n' % (n, n) if n % 5 else b'r%d,"x"y,\n' % n for n in range(40)
    )  # fmt: skip
    return {
        "jsonl": (lines, JSONL),
        "json": (array, JSON),
        "object": (row(1) + b"\n", JSON),
        "csv": (table, CSV),
        "jsonl.gz": (gzip.compress(lines), ZIPPED[Kind.JSONL]),
        "json.gz": (gzip.compress(array), ZIPPED[Kind.JSON]),
        "csv.gz": (gzip.compress(table), ZIPPED[Kind.CSV]),
    }


@pytest.mark.parametrize("sample", samples())
@pytest.mark.parametrize(("rows", "long"), [(1, ()), (9, (LONG,))])
def test_reading_on_from_every_place_gives_what_one_reading_gives(
    sample: str, rows: int, long: tuple[bytes, ...]
) -> None:
    data, kind = samples(*long)[sample]
    whole = taken(data, kind)
    found = list(chunks(io.BytesIO(data), kind, rows=rows))

    for n, chunk in enumerate(found, 1):
        both = [*found[:n], *chunks(io.BytesIO(data), kind, start=chunk.end, rows=rows)]

        assert [patch for chunk in both for patch in chunk.patches] == whole[0]
        assert [(r.line, r.reason) for chunk in both for r in chunk.rejects] == whole[1]


@pytest.mark.parametrize("sample", samples())
def test_a_file_that_has_shrunk_below_the_place_is_not_taken_for_complete(sample: str) -> None:
    data, kind = samples()[sample]
    plain = gzip.decompress(data) if kind.gz else data
    beyond = Position(len(plain) + 1, 10)

    assert "has shrunk" in unreadable(data, kind, start=beyond)


# Pipes and other files that cannot be read twice


@pytest.mark.parametrize("sample", samples())
def test_a_pipe_is_read_like_a_file(sample: str) -> None:
    data, kind = samples()[sample]
    reader, writer = os.pipe()

    def feed() -> None:
        with open(writer, "wb") as pipe:
            pipe.write(data)

    feeding = threading.Thread(target=feed)
    feeding.start()
    with open(reader, "rb", buffering=0) as pipe:
        found = [patch for chunk in read(pipe, kind) for patch in chunk.patches]
    feeding.join()

    assert found == taken(data, kind)[0]


def test_reading_in_one_go_verifies_first() -> None:
    with pytest.raises(Unreadable, match="truncated"):
        next(read(io.BytesIO(b"[" + row(1) + b","), JSON))
