"""How far a file is handed in, and what is said about it: nothing here touches the world."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from syncd.cli.outbox import Part, Taken
from syncd.cli.printing import many
from syncd.formats import Kind, Reject

NAMED = 20  # rejected lines shown to people
KEPT = 1000  # rejected lines in --json


@dataclass(frozen=True, slots=True)
class Tally:
    """How far it is. A signal may come between any two steps: each makes another one, whole."""

    name: str
    kind: Kind = Kind.JSONL
    taken: Taken = field(default_factory=Taken)
    rejected: int = 0
    rejects: tuple[Reject, ...] = ()
    """The first of them."""
    pieces: int = 0
    line: int = 0
    """The pieces, and the lines, of the file that are done with."""
    on_its_way: Part | None = None
    """Handed in, and not yet known to be accepted."""
    why: str | None = None
    """Why the rest of the file is not handed in."""

    def sends(self, part: Part) -> "Tally":
        """A part is handed in."""
        return replace(self, on_its_way=part)

    def accepts(self, taken: Taken) -> "Tally":
        """It is in the outbox."""
        assert self.on_its_way is not None
        return replace(self, taken=self.taken + taken, on_its_way=None).passes(self.on_its_way)

    def passes(self, part: Part) -> "Tally":
        """All of a part is done with."""
        return replace(
            self,
            rejected=self.rejected + len(part.rejects),
            rejects=(*self.rejects, *part.rejects[: KEPT - len(self.rejects)]),
            pieces=self.pieces + part.pieces,
            line=part.line,
        )

    def finds(self, outbox: Taken, *, final: bool) -> "Tally":
        """All that the outbox holds of the file; `final` if no more of it can come."""
        part = self.on_its_way
        if part is None:
            return self
        known = self.taken.accepted + self.taken.duplicates
        if outbox.accepted + outbox.duplicates >= known + len(part.patches):
            return replace(self, taken=outbox, on_its_way=None).passes(part)
        return self.refused() if final else self

    def refused(self) -> "Tally":
        """What was on its way is not in, and will not be."""
        return replace(self, on_its_way=None)


def to_name(tally: Tally, named: int) -> Sequence[Reject]:
    """The rejects that are shown to people, but for those that were named already.

    Those of a part that is on its way too: from wherever one goes on, nobody loses a line unheard.
    """
    return (*tally.rejects, *_perhaps(tally))[named:NAMED]


def unnamed(tally: Tally) -> int:
    """How many more there are than are shown to people."""
    return max(0, tally.rejected + len(_perhaps(tally)) - NAMED)


def _perhaps(tally: Tally) -> Sequence[Reject]:
    return tally.on_its_way.rejects if tally.on_its_way else ()


def in_words(tally: Tally) -> str:
    """What became of a file that was handed in whole."""
    taken = tally.taken
    batch = f" as batch {tally.name}" if taken.accepted or taken.duplicates else ""
    counts = (
        f"accepted {many(taken.accepted, 'patch')}{batch}",
        f"{many(taken.duplicates, 'duplicate')} skipped" if taken.duplicates else "",
        f"rejected {many(tally.rejected, 'line')}" if tally.rejected else "",
    )
    return ", ".join(filter(None, counts))


def so_far(tally: Tally) -> str:
    """Of one that was not: how far that is certain, and from where to go on.

    To hand in again what is in already would store it twice.
    """
    part, unit = tally.on_its_way, _unit(tally)
    if part is None and not tally.pieces:
        return "nothing was accepted"
    accepted = f"{many(tally.taken.accepted, 'patch')} accepted"
    if tally.rejected:
        accepted += f", {many(tally.rejected, 'line')} rejected"
    here = f"go on from {unit} {_next(tally)}"
    header = ", below the header" if tally.kind is Kind.CSV else ""
    if part is None:
        return f"{accepted}: {here}{header}"
    return (
        f"{accepted}, and perhaps {many(len(part.patches), 'patch')} more: see `syncd batches`;"
        f" {here}, or from {unit} {_next(tally, part)} if they are in{header}"
    )


def in_json(tally: Tally) -> str:
    """The same for programs, whatever the end."""
    part, ended = tally.on_its_way, tally.why is not None
    next_one = f"next_{_unit(tally)}"
    found = {
        **asdict(tally.taken),
        "batch": tally.name,
        "rejected_count": tally.rejected,
        "rejected": _all_of(tally.rejects),
        "refused": tally.why,
        next_one: _next(tally) if ended else None,
        "perhaps": part
        and {
            "patches": len(part.patches),
            "rejected": _all_of(part.rejects),
            next_one: _next(tally, part),
        },
    }
    return json.dumps(found, ensure_ascii=False)


def _all_of(rejects: Sequence[Reject]) -> list[dict[str, object]]:
    return [{"line": one.line, "reason": one.reason, "input": one.input} for one in rejects]


def _unit(tally: Tally) -> str:
    """What to count by: an array may stand on one line."""
    return "element" if tally.kind is Kind.JSON else "line"


def _next(tally: Tally, part: Part | None = None) -> int:
    """Where to go on, if that part is in as well."""
    if tally.kind is Kind.JSON:
        return tally.pieces + (part.pieces if part else 0) + 1
    # The header is there again whenever one goes on.
    return max((part or tally).line, int(tally.kind is Kind.CSV)) + 1
