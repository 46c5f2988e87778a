"""CSV files: what a header names, and records that are none."""

import pytest
from patch_files import CSV, MIB, of, taken, unreadable

from syncd.core.patch import Patch
from syncd.formats.chunk import MAX_PIECE


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
