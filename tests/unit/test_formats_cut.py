"""What was written is what is read, wherever the pieces of a file are cut."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_files import CSV, JSON, JSONL, MIB, ZIPPED, Trickle, of, row, taken

from syncd.core.patch import Patch
from syncd.formats import (
    Format,
    Unreadable,
    verify,
)

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
