"""From the bytes of a file to patches and reasons: its name, lines of JSON, compression."""

import gzip
import io
import itertools
import os
import tracemalloc
from collections.abc import Callable

import pytest
from patch_files import CSV, JSON, JSONL, MIB, ZIPPED, of, row, spaced, taken, unreadable

from syncd.formats import (
    Chunk,
    Format,
    Kind,
    Position,
    chunks,
    format_of,
    verify,
)
from syncd.formats.chunk import MAX_PIECE


class Zeros(io.RawIOBase):
    """A file of one repeated byte, as large as one likes."""

    def __init__(self, head: bytes, fill: bytes, size: int, tail: bytes) -> None:
        self._pieces = [head, tail]
        self._fill, self._size = fill, size

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1, /) -> bytes:
        if self._pieces and len(self._pieces) == 2:
            return self._pieces.pop(0)
        if self._size > 0:
            size = min(size, self._size)
            self._size -= size
            return self._fill * size
        return self._pieces.pop() if self._pieces else b""


# Names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", JSON),
        ("a.jsonl", JSONL),
        ("a.ndjson", JSONL),
        ("a.csv", CSV),
        ("a.b.JSONL", JSONL),
        ("a.json.gz", ZIPPED[Kind.JSON]),
        ("a.ndjson.gz", ZIPPED[Kind.JSONL]),
        ("A.CSV.GZ", ZIPPED[Kind.CSV]),
        ("a.gz", None),
        ("a.txt", None),
        ("json", None),
        ("a.json.zip", None),
    ],
)
def test_a_name_tells_the_format(name: str, kind: Format | None) -> None:
    assert format_of(name) == kind


# JSONL


def test_jsonl_is_one_patch_a_line_and_a_bad_line_is_rejected_alone() -> None:
    data = b"\n".join([row(1), b"", b"  \t", b"{oops", row(2), b'"x"', row(3)])

    found, rejected = taken(data, JSONL)

    assert found == [of(1), of(2), of(3)]
    assert [line for line, _ in rejected] == [4, 6]


def test_jsonl_may_have_a_byte_order_mark_and_any_line_ends() -> None:
    data = b"\xef\xbb\xbf" + row(1) + b"\r\n" + row(2) + b"\n\r\n" + row(3)

    assert taken(data, JSONL) == ([of(1), of(2), of(3)], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("kind", [JSON, JSONL, CSV])
def test_other_encodings_are_unreadable_with_advice(kind: Format, encoding: str) -> None:
    text = "workflow_run_id,name\nr,n\n" if kind is CSV else row(1).decode() + "\n"

    assert "save it as UTF-8" in unreadable(text.encode(encoding), kind)


def test_a_last_line_cut_short_is_rejected_and_one_without_a_newline_is_not() -> None:
    whole = row(1) + b"\n" + row(2)

    assert taken(whole, JSONL) == ([of(1), of(2)], [])
    found, rejected = taken(whole[:-3], JSONL)
    assert found == [of(1)]
    assert rejected[0][0] == 2
    assert "may be cut short" in rejected[0][1]


@pytest.mark.parametrize("size", [MAX_PIECE + 1, 3 * MIB + 17])
def test_a_line_that_is_too_long_is_rejected_alone(size: int) -> None:
    data = row(1) + b"\n" + b"x" * size + b"\n" + row(2) + b"\n\n" + row(3)

    found, rejected = taken(data, JSONL)

    assert found == [of(1), of(2), of(3)]
    assert rejected == [(2, f"the line is longer than {MAX_PIECE} bytes")]


def test_a_line_of_the_longest_length_is_read() -> None:
    long = spaced(row(1), MAX_PIECE)

    found, rejected = taken(long + b"\n" + row(2), JSONL)

    assert len(long) == MAX_PIECE
    assert [patch.workflow_run_id for patch in found] == ["r1", "r2"]
    assert rejected == []


def test_a_line_without_end_is_skipped_without_being_held() -> None:
    file = Zeros(row(1) + b"\n", b"x", 200 * MIB, b"\n" + row(2) + b"\n")
    tracemalloc.start()

    found = list(chunks(file, JSONL))  # type: ignore[arg-type]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [patch for chunk in found for patch in chunk.patches] == [of(1), of(2)]
    assert peak < 8 * MIB


def test_what_was_rejected_is_shown_bounded_and_without_loss() -> None:
    bad = b'{"workflow_run_id":"\xff\xfe' + "é".encode() * 5000

    (chunk,) = chunks(io.BytesIO(row(1) + b"\n" + bad + b"\n"), JSONL)

    (reject,) = chunk.rejects
    assert reject.input.startswith('{"workflow_run_id":"\\xff\\xfeéé')
    assert reject.input.endswith("é…")
    assert len(reject.input.encode()) < 4200


def test_chunks_are_bounded_in_rows_and_in_bytes() -> None:
    small = b"".join(row(n) + b"\n" for n in range(25))
    large = b"".join(row(n, name="x" * 500_000) + b"\n" for n in range(20))

    by_rows = list(chunks(io.BytesIO(small), JSONL, rows=10))
    by_bytes = list(chunks(io.BytesIO(large), JSONL, rows=1000))

    assert [len(chunk.patches) for chunk in by_rows] == [10, 10, 5]
    assert max(len(chunk.patches) for chunk in by_bytes) <= 9


def test_whoever_reads_may_be_asked_how_many_rows_come_next() -> None:
    data = b"".join(row(n) + b"\n" for n in range(10))
    wanted = itertools.count(1)

    found = chunks(io.BytesIO(data), JSONL, rows=lambda: next(wanted))

    assert [len(chunk.patches) for chunk in found] == [1, 2, 3, 4, 0]


def test_an_empty_file_is_one_empty_last_chunk() -> None:
    assert list(chunks(io.BytesIO(b""), JSONL)) == [Chunk([], [], Position(0, 0), True)]


# Compressed


@pytest.mark.parametrize("kind", list(Kind))
def test_compressed_files_are_read_like_plain_ones(kind: Kind) -> None:
    plain = {
        Kind.JSON: b"[" + row(1) + b"," + row(2) + b"]",
        Kind.JSONL: row(1) + b"\n" + row(2) + b"\n",
        Kind.CSV: b"workflow_run_id,name\nr1,n\nr2,n\n",
    }[kind]
    members = gzip.compress(plain[:10]) + gzip.compress(plain[10:])

    assert verify(io.BytesIO(members), ZIPPED[kind]) is None
    assert taken(members, ZIPPED[kind]) == ([of(1), of(2)], [])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "not a gzip file"),
        (lambda data: b"{}", "not a gzip file"),
        (lambda data: data[:5], "truncated"),
        (lambda data: data[:-20], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], "damaged"),
        (lambda data: data[:40] + b"\xff" * 40 + data[80:], "damaged"),
        (lambda data: data + b"garbage", "other bytes follow"),
    ],
)
@pytest.mark.parametrize("kind", list(Kind))
def test_damaged_compression_is_noticed_before_the_first_patch(
    kind: Kind, damage: Callable[[bytes], bytes], words: str
) -> None:
    body = b"\n".join(row(n, name=os.urandom(20).hex()) for n in range(50))
    if kind is Kind.JSON:
        body = b"[" + body.replace(b"\n", b",") + b"]"

    assert words in str(verify(io.BytesIO(damage(gzip.compress(body))), ZIPPED[kind]))


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(b"\n" * (200 * MIB))
    tracemalloc.start()

    reason = verify(io.BytesIO(bomb), ZIPPED[Kind.JSONL], limit=50 * MIB)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than 52428800 bytes" in str(reason)
    assert peak < 8 * MIB
