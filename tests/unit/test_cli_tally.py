"""What `enqueue --file` says of a file that was not handed in whole."""

import json

import pytest

from syncd.cli.outbox import Part, Taken, parts
from syncd.cli.tally import Tally, in_json, so_far, to_name, unnamed
from syncd.core.patch import Patch
from syncd.formats import Chunk, Kind, Position, Reject


def part(patches: int, line: int, rejects: int = 0) -> Part:
    rejected = [Reject(line, "no", "?")] * rejects
    return Part([Patch("r", "n")] * patches, rejected, patches + rejects, line)


def tally(kind: Kind = Kind.JSONL) -> Tally:
    """A part of two patches, one of them a duplicate, and a reject is in; another is on its way."""
    begun = Tally("a", kind, why="the daemon went away").sends(part(2, 3, rejects=1))
    return begun.accepts(Taken(1, 1, 1, 1)).sends(part(2, 6))


@pytest.mark.parametrize("final", [True, False])
def test_what_the_outbox_holds_is_in(final: bool) -> None:
    it = tally().finds(Taken(3, 1, 1, 3), final=final)

    assert (it.taken, it.rejected) == (Taken(3, 1, 1, 3), 1)
    assert so_far(it) == "3 patches accepted, 1 line rejected: go on from line 7"


def test_what_it_does_not_hold_is_not_in_once_nothing_can_come() -> None:
    it = tally().finds(Taken(1, 1, 1, 1), final=True)

    assert so_far(it) == "1 patch accepted, 1 line rejected: go on from line 4"


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (Kind.JSONL, "go on from line 4, or from line 7 if they are in"),
        (Kind.CSV, "go on from line 4, or from line 7 if they are in, below the header"),
        (Kind.JSON, "go on from element 4, or from element 6 if they are in"),
    ],
)
def test_while_more_may_come_both_places_are_named(kind: Kind, where: str) -> None:
    it = tally(kind).finds(Taken(1, 1, 1, 1), final=False)
    found = json.loads(in_json(it))
    unit = "element" if kind is Kind.JSON else "line"

    sure = "1 patch accepted, 1 line rejected, and perhaps 2 patches more: see `syncd batches`"
    assert so_far(it) == f"{sure}; {where}"
    assert (found["accepted"], found[f"next_{unit}"]) == (1, 4)
    assert found["perhaps"]["patches"] == 2
    assert f"from {unit} {found['perhaps'][f'next_{unit}']} if" in where


def test_rejects_are_named_once_those_that_are_on_their_way_too() -> None:
    """Who goes on behind a part that is in after all never meets them again."""
    begun = Tally("a").sends(part(1, 18, rejects=18)).accepts(Taken(1, 0, 1, 1))
    it = begun.sends(part(2, 30, rejects=7))

    assert [reject.line for reject in to_name(begun, 0)] == [18] * 18
    assert [reject.line for reject in to_name(it, 18)] == [30] * 2
    assert (unnamed(begun), unnamed(it)) == (0, 5)
    assert [len(json.loads(in_json(it))["perhaps"]["rejected"]), it.rejected] == [7, 18]
    assert (to_name(it.refused(), 18), unnamed(it.refused())) == ((), 0)


def test_of_a_file_that_is_in_there_is_no_next_line() -> None:
    found = json.loads(in_json(Tally("a").sends(part(2, 2)).accepts(Taken(2, 0, 1, 2))))

    assert [found[name] for name in ("refused", "next_line", "perhaps")] == [None] * 3


def test_what_was_refused_is_not_in() -> None:
    assert so_far(tally().refused()) == "1 patch accepted, 1 line rejected: go on from line 4"


def test_where_nothing_was_done_there_is_nothing_to_go_on_from() -> None:
    assert so_far(Tally("a")) == "nothing was accepted"


def test_each_part_knows_its_end_however_large_its_patches_are() -> None:
    """No line of a file is in two of them, blank ones included."""
    sizes = [10_000] * 120 + [10] * 1200
    chunks = [
        Chunk([Patch("r", "x" * size)], [], Position(0, 2 * number), False)
        for number, size in enumerate(sizes, start=1)
    ]
    found = list(parts([*chunks, Chunk([], [], Position(0, 2700), True)]))

    assert [one.line for one in found] == [104, 208, 1208, 2208, 2700]
    assert sum(len(one.patches) for one in found) == len(sizes)
