"""Files that are one JSON text: a patch, or an array of them."""

import gzip
import io
import tracemalloc

import pytest
from patch_files import JSON, MIB, of, row, spaced, taken

from syncd.core.patch import Patch
from syncd.formats import (
    chunks,
    verify,
)
from syncd.formats.chunk import MAX_PIECE


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        (row(1), ["r1"]),
        (b" \n" + row(1) + b"\n\n", ["r1"]),
        (b"[]", []),
        (b" [ \n ] ", []),
        (b"[" + row(1) + b"]", ["r1"]),
        (b"\xef\xbb\xbf[" + row(1) + b" ,\r\n" + row(2) + b"]\n", ["r1", "r2"]),
    ],
)
def test_json_is_one_patch_or_an_array_of_them(data: bytes, runs: list[str]) -> None:
    assert verify(io.BytesIO(data), JSON) is None

    found, rejected = taken(data, JSON)

    assert [patch.workflow_run_id for patch in found] == runs
    assert rejected == []


def test_numbers_of_an_array_stay_as_they_were_written() -> None:
    data = b'[ {"workflow_run_id": "r", "metadata": {"n": 1.10, "big": 123456789012345678901} } ]'

    assert taken(data, JSON)[0] == [Patch("r", None, '{"n": 1.10, "big": 123456789012345678901}')]


def test_an_element_that_is_no_patch_is_rejected_alone_with_its_line() -> None:
    data = b"[" + b",\n".join(
        [row(1), b"7", b'"a]"', b"null", b"[[1], {}]", b'{"x":\n1}', b"-1.5e3", row(2)]
    ) + b"]"  # fmt: skip

    found, rejected = taken(data, JSON)

    assert verify(io.BytesIO(data), JSON) is None
    assert found == [of(1), of(2)]
    assert [line for line, _ in rejected] == [2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    "element",
    [
        b'{"workflow_run_id":"r","metadata":{"a":1e400}}',
        b'{"workflow_run_id":"r","metadata":{"a":"\\ud800"}}',
        b'{"workflow_run_id":"r\xff","name":"n"}',
        b'{"workflow_run_id":"r","metadata":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"workflow_run_id":"r","name":"' + b"x" * MAX_PIECE + b'"}',
        b'{"a":"' + b'\\"[{' * MAX_PIECE + b'"}',
        b'"' + b"\\\\" * MAX_PIECE + b'"',
        b"[" * 600_000 + b"]" * 600_000,
    ],
)
def test_an_element_nobody_can_use_does_not_stop_the_others(element: bytes) -> None:
    data = b"[" + row(1) + b",\n" + element + b",\n" + row(2) + b"]"

    found, rejected = taken(data, JSON)

    assert verify(io.BytesIO(data), JSON) is None
    assert found == [of(1), of(2)]
    assert [line for line, _ in rejected] == [2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"7", "neither"),
        (b'"x"', "neither"),
        (row(1)[:-1], "truncated"),
        (b"[", "truncated"),
        (b"[" + row(1), "truncated"),
        (b"[" + row(1) + b",", "truncated"),
        (b"[" + row(1)[:-4], "truncated"),
        (b"[12", "truncated"),
        (b"[\n" + row(1) + b"\n" + row(2) + b"]", "line 3: expected a comma"),
        (b"[" + row(1) + b",\n]", "line 2: expected a value"),
        (b"[,]", "line 1: expected a value"),
        (b"[" + row(1) + b"]\n]", "line 2: something follows"),
        (row(1) + b"\n" + row(2), "line 2: something follows"),
        (b'[\n{"a":1,\n"b":tru}]', "line 3: not valid JSON"),
        (b'[{"a":NaN}]', "line 1: not valid JSON"),
        (b'[\n{"a":01}]', "line 2: not valid JSON"),
        (b'[{"a":1]]', "line 1: not valid JSON"),
        (b"[{'a':1}]", "line 1: not valid JSON"),
        (b"[" * 200_000, "truncated"),
        (b"[\x00]", "UTF-16"),
        (b"\0" * 100, "NUL bytes"),
        (gzip.compress(b"{}"), "end the file's name with .gz"),
    ],
)
def test_a_file_that_is_not_json_is_refused_before_its_first_patch(data: bytes, words: str) -> None:
    assert words in str(verify(io.BytesIO(data), JSON))


def test_a_large_array_is_read_in_little_memory(tmp_path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b"[" + row(0))
        for n in range(1, 200):
            file.write(b",\n" + spaced(row(n, metadata={"x": ["y" * 300] * 20}), 206_000))
        file.write(b"]")
    tracemalloc.start()

    with path.open("rb", buffering=0) as file:
        reason = verify(file, JSON)
        count = sum(len(chunk.patches) for chunk in chunks(file, JSON))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (reason, count) == (None, 200)
    assert path.stat().st_size > 39 * MIB
    assert peak < 12 * MIB
