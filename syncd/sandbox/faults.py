"""What goes wrong on purpose: the `--faults` spec, and the fault that meets a request.

A spec is a list of `kind=probability` and durations, such as `500=0.1,drop=0.02,slow_s=0.3`:

    drop        the connection is cut, nothing is applied
    drop_after  applied, then the connection is cut without an answer
    hang        no answer until the client leaves, nothing is applied
    garbage     a 200 that is not JSON, nothing is applied
    slow        an honest answer, `slow_s` late (1 s)
    false       a 200 that says `"success": false`, nothing is applied
    wrong_id    a 200 with the WorkflowRun of another id, nothing is applied
    zombie      the connection is cut now, the patch is applied `zombie_s` later (2.5 s)
    400 … 599   that status with the generation's error body, nothing is applied

The fault can also be data: a run whose id contains `~kind` (`my_run~500`, `a~drop_after~b`) meets
that fault at every request, whatever the spec says.
"""

import math
import re
from dataclasses import dataclass
from random import Random

KINDS = ("drop", "drop_after", "hang", "garbage", "slow", "false", "wrong_id", "zombie")
_DURATIONS = ("slow_s", "zombie_s")
_ALLOWED = f"{', '.join(KINDS)}, a status from 400 to 599, {' or '.join(_DURATIONS)}"
# The longest first, or `~drop_after` would be read as `~drop`.
_MARK = re.compile(rf"~({'|'.join(sorted(KINDS, key=len, reverse=True))}|[45]\d\d)")


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults to draw how often, one at most per request, and how long slow ones last."""

    chances: tuple[tuple[str, float], ...] = ()
    slow_s: float = 1.0
    zombie_s: float = 2.5

    def draw(self, chance: Random) -> str | None:
        """One request's fault; takes a number from `chance` only if there is one to draw."""
        if not self.chances:
            return None
        point = chance.random()
        for kind, probability in self.chances:
            if point < probability:
                return kind
            point -= probability
        return None

    def __str__(self) -> str:
        """The spec that parses to these faults."""
        parts = [f"{kind}={probability!r}" for kind, probability in self.chances]
        return ",".join([*parts, f"slow_s={self.slow_s!r}", f"zombie_s={self.zombie_s!r}"])


def parse_faults(spec: str) -> Faults:
    """The faults of a spec; ValueError, one line, where it is not one. An empty spec has none."""
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        kind, _, text = (piece.strip() for piece in part.partition("="))
        if kind not in KINDS and kind not in _DURATIONS and not _is_status(kind):
            raise ValueError(f"faults: {part!r}: allowed are {_ALLOWED}")
        if kind in values:
            raise ValueError(f"faults: {part!r}: {kind} is given twice")
        values[kind] = _number(part, text, at_most=math.inf if kind in _DURATIONS else 1.0)
    durations = {name: values.pop(name) for name in _DURATIONS if name in values}
    if (total := math.fsum(values.values())) > 1.0:
        raise ValueError(f"faults: {spec!r}: the probabilities make {total:g}, must be 1 at most")
    return Faults(tuple(values.items()), **durations)


def marked(run_id: str) -> str | None:
    """The fault that a run id carries with it."""
    if "~" not in run_id:
        return None
    mark = _MARK.search(run_id)
    return mark[1] if mark else None


def _is_status(kind: str) -> bool:
    return re.fullmatch(r"[45][0-9]{2}", kind) is not None


def _number(part: str, text: str, at_most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= at_most or math.isinf(value):
        limit = "a probability from 0 to 1" if at_most == 1.0 else "seconds, 0 or more"
        raise ValueError(f"faults: {part!r}: must be {limit}")
    return value
