"""JSONL: one patch a line."""

from collections.abc import Iterator

from syncd.core.patch import Invalid, parse
from syncd.formats.chunk import MAX_PIECE, Chunk, Draft, Position, Rows
from syncd.formats.lines import TooLong, Unended, lines
from syncd.formats.stream import Stream, without_bom


def chunks(stream: Stream, start: Position, rows: Rows) -> Iterator[Chunk]:
    """The chunks of the file from a place reached before. Blank lines say nothing."""
    stream.skip_to(start.offset)
    draft = Draft(rows, start.offset)
    end, line = start.offset, start.line
    for raw, end, flaw in lines(stream):
        line += 1
        if line == 1:
            raw = without_bom(raw)  # noqa: PLW2901
        if isinstance(flaw, TooLong):
            draft.add(Invalid(f"the line is longer than {MAX_PIECE} bytes"), line, raw)
        elif raw and not raw.isspace():
            found = parse(raw)
            if isinstance(flaw, Unended) and isinstance(found, Invalid):
                found = Invalid(
                    f"{found.reason}; the file may be cut short: its last line has no end"
                )
            draft.add(found, line, raw)
        if draft.is_full(end):
            yield draft.close(end, line)
    yield draft.close(end, line, last=True)
