"""From the bytes of a file to patches and reasons: every format, whole, broken and resumed."""

import csv
import gzip
import io
import itertools
import json
import os
import threading
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.patch import Patch
from syncd.formats import (
    Chunk,
    Format,
    Kind,
    Position,
    Unreadable,
    chunks,
    format_of,
    read,
    verify,
)
from syncd.formats.chunk import MAX_PIECE

JSON, JSONL, CSV = Format(Kind.JSON), Format(Kind.JSONL), Format(Kind.CSV)
ZIPPED = {kind: Format(kind, gz=True) for kind in Kind}
MIB = 1 << 20

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
steps = st.integers(1, 40)
patches = st.lists(
    st.builds(
        lambda run, name, metadata: Patch(run, name, json.dumps(metadata)),
        st.text("abc-_é😀", min_size=1, max_size=5).map("run_".__add__),
        names,
        st.dictionaries(names, st.none() | st.integers() | names | st.lists(names, max_size=2)),
    ),
    max_size=12,
)


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


# JSON


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


# CSV


def test_csv_sets_what_its_header_names() -> None:
    data = (
        "workflow_run_id,name,metadata.note,metadata:json.n,metadata:json.list,"
        "idempotency_key,priority\n"
        'r1,first,007,1.10,"[1, ""a""]",k1,5\n'
        "r2,,,,,,\n"
        "r3,third,,,,,\n"
        'r4,,"say ""hi"",\r\nplease",null,,,-1\n'
    )

    found, rejected = taken(data.encode(), CSV)

    assert found == [
        Patch("r1", "first", '{"note":"007","n":1.10,"list":[1, "a"]}', "k1", 5),
        Patch("r3", "third"),
        Patch("r4", None, '{"note":"say \\"hi\\",\\r\\nplease","n":null}', None, -1),
    ]
    assert rejected == [(3, "a patch needs a name or metadata")]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"r", "1 cells where the header has 3"),
        (b"r,n,1,2", "4 cells where the header has 3"),
        (b",n,", "workflow_run_id must be"),
        (b"r,n,{", "not valid JSON"),
        (b'r,n,"1,""x"":2"', "not valid JSON"),
        (b"r,n,NaN", "not valid JSON"),
        (b"r\xff,n,", "not valid UTF-8"),
        (b"r\x00,n,", "NUL"),
        (b'"r"x,n,', "not valid CSV"),
        (b"r,n\rm,", "carriage return"),
        (b"r," + b"x" * MAX_PIECE + b",", "longer than"),
        (b'r,"' + b"x\n" * MIB + b'",', "longer than"),
        (b'r,"' + b"x" * (3 * MIB) + b'\n",', "longer than"),
    ],
)
def test_a_bad_record_is_rejected_alone(record: bytes, words: str) -> None:
    data = b"workflow_run_id,name,metadata:json.a\nr1,n,\n" + record + b"\n\nr2,n,\n"

    found, rejected = taken(data, CSV)

    assert found == [of(1), of(2)]
    assert [line for line, _ in rejected] == [3]
    assert words in rejected[0][1]


@pytest.mark.parametrize("priority", ["1.0", "x", "9" * 19, "1_000", "٣"])
def test_a_priority_is_an_integer(priority: str) -> None:
    data = f"workflow_run_id,name,priority\nr,n,{priority}\n".encode()

    assert "priority must be an integer" in taken(data, CSV)[1][0][1]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "empty"),
        ("\n", 'no column "workflow_run_id"'),
        (
            "name",
            'no column "workflow_run_id": the first line must name the columns: known are work',
        ),
        ("run,name", 'unknown column "run": known are workflow_run_id, name, idempotency_key, '),
        ("workflow_run_id,nmae", 'unknown column "nmae": did you mean "name"?'),
        ("workflow_run_id,metadata", 'did you mean "metadata.KEY"?'),
        ("workflow_run_id,metadata.", "unknown column"),
        ("workflow_run_id,metadata:json.", "unknown column"),
        ("workflow_run_id,", "unknown column"),
        ("workflow_run_id,name,name", 'column "name" is there twice'),
        ("workflow_run_id,metadata.a,metadata:json.a", 'metadata key "a" has two columns'),
        ("workflow_run_id;name", "save it with commas"),
        ('"workflow_run_id', "never closed"),
        ("workflow_run_id\rr1", "end lines with LF"),
    ],
)
def test_a_header_that_is_not_understood_makes_the_file_unreadable(header: str, words: str) -> None:
    assert words in unreadable(header.encode(), CSV)


def test_a_cell_that_is_never_closed_is_not_taken_for_records() -> None:
    data = b'workflow_run_id,name\nr1,n\nr9,"open\nr8,n\nr7,n\n'

    found, rejected = taken(data, CSV)

    assert found == [of(1)]
    assert rejected == [(3, "a quoted cell is never closed: the file may be cut short")]


def test_the_inside_of_a_cell_that_is_too_long_is_not_taken_for_records() -> None:
    inside = b"\n".join(b"r9,n" for _ in range(MIB // 2))
    data = b'workflow_run_id,name\nr1,"' + inside + b'"\nr2,n\n'

    found, rejected = taken(data, CSV)

    assert found == [of(2)]
    assert [line for line, _ in rejected] == [2]


def test_a_last_record_without_a_newline_counts_only_from_a_closed_file() -> None:
    data = b"workflow_run_id,name\nr1,n\nr2,n"

    assert taken(data, CSV, closed=True) == ([of(1), of(2)], [])
    found, rejected = taken(data, CSV, closed=False)
    assert found == [of(1)]
    assert rejected == [(3, "the file may be cut short: its last line has no end")]


def test_csv_may_have_a_byte_order_mark_and_dos_line_ends() -> None:
    data = b"\xef\xbb\xbfworkflow_run_id,name\r\nr1,n\r\n"

    assert taken(data, CSV) == ([of(1)], [])


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


# Round trips


def text_of(patch: Patch) -> str:
    return f'{{"workflow_run_id":{json.dumps(patch.workflow_run_id)},"name":{json.dumps(patch.name)},"metadata":{patch.metadata}}}'  # noqa: E501


@given(patches, st.sampled_from(["\n", "\r\n", "\n\n"]), steps)
def test_jsonl_round_trip(sent: list[Patch], newline: str, step: int) -> None:
    data = newline.join(text_of(patch) for patch in sent).encode()

    assert taken(data, JSONL, rows=3) == (sent, [])
    assert taken(data, JSONL, rows=3, step=step) == (sent, [])


@given(patches, st.sampled_from([",", " ,\n", ",\r\n\t"]), steps)
def test_json_round_trip(sent: list[Patch], comma: str, step: int) -> None:
    data = ("[" + comma.join(text_of(patch) for patch in sent) + "]").encode()

    assert verify(Trickle(data, step), JSON) is None
    assert taken(data, JSON, rows=3) == (sent, [])
    assert taken(data, JSON, rows=3, step=step) == (sent, [])


@given(
    patches,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    steps,
)
def test_csv_round_trip(sent: list[Patch], newline: str, quoting: int, step: int) -> None:
    # Python's writer of 3.11 leaves a carriage return unquoted, which nobody can tell from an end.
    unquoted = "\r" if quoting == csv.QUOTE_MINIMAL else ""
    sent = [patch for patch in sent if patch.name and not (unquoted and unquoted in patch.name)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=newline, quoting=quoting)
    writer.writerow(["workflow_run_id", "metadata:json.all", "name"])
    for patch in sent:
        writer.writerow([patch.workflow_run_id, patch.metadata, patch.name])

    found, rejected = taken(out.getvalue().encode(), CSV, rows=3, step=step)

    assert rejected == []
    assert [(p.workflow_run_id, p.name) for p in found] == [
        (p.workflow_run_id, p.name) for p in sent
    ]
    assert [p.metadata for p in found] == [f'{{"all":{p.metadata}}}' for p in sent]


@given(st.binary(max_size=200), st.sampled_from([JSON, JSONL, CSV, *ZIPPED.values()]), steps)
def test_whatever_the_bytes_reading_ends_in_chunks_or_one_reason(
    data: bytes, kind: Format, step: int
) -> None:
    reason = verify(Trickle(data, step), kind)

    if reason is None:
        try:
            found, rejected = taken(data, kind, step=step)
        except Unreadable as unreadable:
            assert str(unreadable)  # noqa: PT017
        else:
            assert len(found) + len(rejected) <= data.count(b"\n") + data.count(b",") + 1


@given(st.text(alphabet='[]{}",:\\ \nntruefals1e-.', max_size=60), steps)
def test_an_array_is_cut_where_json_says(text: str, step: int) -> None:
    data = f"[{text}]".encode()
    try:
        elements = json.loads(data, parse_constant=float)
    except ValueError:
        elements = None

    reason = verify(Trickle(data, step), JSON)

    assert (reason is None) == (elements is not None)
    if elements is not None:
        found, rejected = taken(data, JSON, step=step)
        assert len(found) + len(rejected) == len(elements)


@given(st.text(alphabet='ab",\r\n ', max_size=60), steps)
def test_csv_is_cut_the_same_whatever_is_read_at_a_time(text: str, step: int) -> None:
    data = b"workflow_run_id,name\n" + text.encode()

    assert taken(data, CSV, step=step, rows=1) == taken(data, CSV)


@pytest.mark.parametrize("step", [1 << 18, 65_537])
@pytest.mark.parametrize(
    "element", [b'"' + b'\\"' * MIB + b'"', b'{"a":[' + b'"x\\\\",' * MIB + b"1]}"]
)
def test_a_long_element_is_passed_over_wherever_it_is_cut(element: bytes, step: int) -> None:
    data = b"[" + row(1) + b"," + element + b",\n" + row(2) + b"]"

    found, rejected = taken(data, JSON, step=step)

    assert found == [of(1), of(2)]
    assert len(rejected) == 1
