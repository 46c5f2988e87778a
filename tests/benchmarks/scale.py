"""How much is measured: everything, or less of it for a quick look."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the work."""

    patches: int = 20_000
    """Delivered in one run."""
    million: int = 1_000_000
    """Lines of a large file, and patches that wait."""
    behind: tuple[int, ...] = (1_000_000, 5_000_000)
    """Patches delivered long ago."""
    inserts: int = 50
    """Of each daemon whose latency is measured."""
    idle_s: float = 15.0
    limit_s: float = 12.0


FULL = Scale()
QUICK = Scale(5_000, 100_000, (100_000, 500_000), 10, 5.0, 6.0)
