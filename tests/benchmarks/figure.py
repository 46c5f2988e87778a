"""A figure: what was measured, how far it spread, what it should be."""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Way = Literal["≥", "≤", "<", "="]
_HOLDS: dict[Way, Callable[[float, float], bool]] = {
    "≥": operator.ge,
    "≤": operator.le,
    "<": operator.lt,
    "=": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be."""

    way: Way
    value: float

    def holds(self, value: float) -> bool:
        return _HOLDS[self.way](value, self.value)

    def __str__(self) -> str:
        return f"{self.way} {_number(self.value)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of several measurements. Only those with a target are judged."""

    name: str
    unit: str
    samples: tuple[float, ...]
    target: Target | None = None
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.samples)

    @property
    def holds(self) -> bool | None:
        return None if self.target is None else self.target.holds(self.value)

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "value": self.value,
            "target": None if self.target is None else str(self.target),
            "holds": self.holds,
        }


def figure(
    name: str,
    unit: str,
    samples: float | Iterable[float],
    target: tuple[Way, float] | None = None,
    note: str = "",
) -> Figure:
    """A figure of one or more measurements."""
    taken = (samples,) if isinstance(samples, int | float) else tuple(samples)
    return Figure(name, unit, taken, Target(*target) if target else None, note)


def ratios(samples: Sequence[float], others: Sequence[float]) -> list[float]:
    """Each measurement by the one that was made beside it."""
    return [one / other for one, other in zip(samples, others, strict=True)]


_COLUMNS = "{:<50}{:>11} {:<9}{:>19}  {:<8}{:<6}{:>9}  {}"
HEAD = _COLUMNS.format("figure", "median", "unit", "spread", "target", "holds", "before", "")


def line(it: Figure, before: float | None = None) -> str:
    """A figure as a line of the table."""
    low, high = min(it.samples), max(it.samples)
    return _COLUMNS.format(
        it.name,
        _number(it.value),
        it.unit,
        f"{_number(low)} … {_number(high)}" if len(it.samples) > 1 else "",
        str(it.target or ""),
        {None: "", True: "yes", False: "NO"}[it.holds],
        "" if before is None else _number(before),
        it.note,
    ).rstrip()


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
