"""How many requests may be in flight: slow start, then one more a cohort; less when told off."""

from dataclasses import dataclass, replace

INITIAL = 2.0
SMALLER = 0.7  # what is left of the window after a sign of overload


@dataclass(frozen=True, slots=True)
class Window:
    """A bound on requests in flight."""

    most: int
    """The operator's bound."""
    size: float = INITIAL
    """The bound in use, between 1 and `most`; only its whole part counts."""
    threshold: float = float("inf")
    """Below it the window doubles with every cohort: half of the last size that was too much."""
    quiet_until: float = 0.0
    """No change before this instant: one overload is one sign, however many answers bring it."""


def begin(most: int) -> Window:
    """A window that starts small."""
    return Window(most, size=min(INITIAL, most))


def slots(window: Window) -> int:
    """How many requests may be in flight."""
    return max(1, min(window.most, int(window.size)))


def grown(window: Window, now: float, in_flight: int) -> Window:
    """An answer came through while `in_flight` requests (its own included) were out.

    A window that is not used does not grow, or it would mean nothing when it is.
    """
    if now < window.quiet_until or window.size >= window.most or in_flight < slots(window):
        return window
    step = 1.0 if window.size < window.threshold else 1.0 / window.size
    return replace(window, size=min(float(window.most), window.size + step))


def shrunk(window: Window, now: float, quiet_s: float) -> Window:
    """The server showed overload (429, 503, a timeout). Frozen for `quiet_s` seconds after."""
    if now < window.quiet_until:
        return window
    size = max(1.0, window.size * SMALLER)
    return replace(window, size=size, threshold=window.size / 2, quiet_until=now + quiet_s)


def restarted(window: Window) -> Window:
    """After an outage: from the bottom up again, fast to half of what was known to work."""
    return replace(window, size=1.0, threshold=max(2.0, window.size / 2), quiet_until=0.0)


def bounded(window: Window, most: int) -> Window:
    """The same window under a new bound (a reload)."""
    return replace(window, most=most, size=min(window.size, float(most)))
