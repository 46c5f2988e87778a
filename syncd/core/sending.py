"""How sending stands: what every patch that waits has in common, and what is out right now."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from syncd.core.breaker import Probe


@dataclass(frozen=True, slots=True)
class Sending:
    """The daemon as a whole, in a word: `running`, `paused`, `blocked` and so on, or `stopped`."""

    state: str
    reason: str | None = None
    """Why it is not running."""
    closed_until: float | None = None
    """Nothing goes before this instant; seconds since the epoch."""
    requests_per_s: float | None = None
    """What to reckon with; None while nothing goes by itself, or gets through."""
    patches_per_request: float = 1.0
    """As folding was lately."""
    by_api: bool = False
    """It is an answer of the API that it stands still for …"""
    probe: Probe | None = None
    """… and this tells when that is over."""


@dataclass(frozen=True, slots=True)
class Out:
    """A request that is out, or whose answer is being written down."""

    patch_ids: tuple[int, ...]
    for_s: float


@dataclass(frozen=True, slots=True)
class Live:
    """What only a running daemon knows. Without one: nothing is out."""

    sending: Sending
    folding: bool
    """Several patches of a run may share a request."""
    out: Mapping[str, Out] = field(default_factory=dict)
    """By run."""
    alone_until: Mapping[str, int] = field(default_factory=dict)
    """By run: patches up to this id go one by one, because a fold of them was refused."""
