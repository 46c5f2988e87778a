"""Numbers arrive as they were written, or are refused."""

import io
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import Vendor, on_stage, virtually

from syncd.core.fold import Waiting, fold
from syncd.core.patch import Invalid, Patch, parse
from syncd.formats import Format, Kind, read

NUMBERS = (
    *("0", "-0", "1.0", "1.50", "20006.780", "1e2", "1E+2", "-1.0e-2", "9007199254740993"),
    *("123456789012345678901234567890", "0.1000000000000000055511151231257827", "1e308", "5e-324"),
    *("18446744073709551616", "-9223372036854775809", "3.141592653589793238462643383279"),
    *("1" + "0" * 200, "0." + "0" * 200 + "1", "1e-400", "0.0e0"),
)
REFUSED = ("1e400", "-1e309", "1" + "0" * 400)  # no double holds them: readers would see infinity


def test_numbers_reach_the_vendor_as_they_were_written(tmp_path: Path) -> None:
    """From every kind of file and from rows, alone and folded."""
    files: dict[Kind, str] = {Kind.JSONL: "", Kind.JSON: "", Kind.CSV: ""}
    lines = [
        f'{{"workflow_run_id":"SOURCE-{n}","metadata":{{"v":{number}}}}}'
        for n, number in enumerate(NUMBERS)
    ]
    files[Kind.JSONL] = "\n".join(lines).replace("SOURCE", "jsonl")
    files[Kind.JSON] = "[" + ",".join(lines).replace("SOURCE", "json") + "]"
    files[Kind.CSV] = "workflow_run_id,metadata:json.v\n" + "\n".join(
        f"csv-{n},{number}" for n, number in enumerate(NUMBERS)
    )
    patches = [
        patch
        for kind, text in files.items()
        for chunk in read(io.BytesIO(text.encode() + b"\n"), Format(kind))
        for patch in chunk.patches
    ]

    async def play() -> dict[str, bytes]:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor, rate=1000.0) as stage:
            await stage.store.accept(patches)
            stage.insert(
                (f"row-{n}", None, f'{{"v": {number}}}') for n, number in enumerate(NUMBERS)
            )
            stage.insert((f"row-{n}", None, '{"w": 1}') for n in range(len(NUMBERS)))
            await stage.drained(within_s=60.0)
        return {run: body for _, run, body, _ in vendor.requests}

    bodies = virtually(play())

    assert len(patches) == 3 * len(NUMBERS)
    for source in ("jsonl", "json", "csv", "row"):
        for n, number in enumerate(NUMBERS):
            metadata = msgspec.json.decode(bodies[f"{source}-{n}"], type=_Body).metadata
            assert bytes(metadata["v"]).decode() == number


class _Body(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


@pytest.mark.parametrize("number", REFUSED)
def test_a_number_that_no_reader_can_hold_is_refused_with_a_reason(number: str) -> None:
    found = parse(f'{{"workflow_run_id":"r","metadata":{{"v":{number}}}}}'.encode())

    assert isinstance(found, Invalid)
    assert "number" in found.reason


@pytest.mark.parametrize("number", REFUSED)
def test_a_row_with_such_a_number_is_sent_as_it_was_written(number: str) -> None:
    """SQLite takes it for JSON at the INSERT, so it is accepted."""
    request = fold([Waiting(1, None, f'{{"v": {number}}}'), Waiting(2, None, '{"w": 1}')])

    assert request.ids == (1, 2)
    assert bytes(msgspec.json.decode(request.body, type=_Body).metadata["v"]).decode() == number


number_texts = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@given(st.lists(number_texts, min_size=1, max_size=4))
def test_any_number_is_folded_as_written_or_refused(numbers: list[str]) -> None:
    texts = [
        f'{{"{key}": {text}}}' for key, text in zip(string.ascii_letters, numbers, strict=False)
    ]
    found = [parse(f'{{"workflow_run_id":"r","metadata":{text}}}'.encode()) for text in texts]
    kept = [(n, patch) for n, patch in enumerate(found) if isinstance(patch, Patch)]

    for n, patch in enumerate(found):
        assert isinstance(patch, Patch) == (float(numbers[n]) not in (float("inf"), -float("inf")))
    if not kept:
        return
    request = fold([Waiting(n + 1, None, patch.metadata) for n, patch in kept])
    metadata = msgspec.json.decode(request.body, type=_Body).metadata
    for n, _ in kept:
        assert bytes(metadata[string.ascii_letters[n]]).decode() == numbers[n]
