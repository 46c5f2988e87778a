"""How long to wait after a failure: full jitter below a doubling, capped ceiling."""


def delay(failures: int, draw: float, *, base_s: float, cap_s: float) -> float:
    """Seconds to wait after the given number of failures in a row (1 or more).

    `draw` is a number in [0, 1); the result is in [0, cap_s). Full jitter spreads a herd best.
    """
    return draw * ceiling(failures, base_s=base_s, cap_s=cap_s)


def ceiling(failures: int, *, base_s: float, cap_s: float) -> float:
    """Seconds that `delay` stays below: base_s, doubled with every failure after the first."""
    doublings = min(max(failures, 1) - 1, 64)  # beyond 64 the cap has long been reached
    return min(cap_s, base_s * 2.0**doublings)


def patient(failures: int, draw: float, *, base_s: float, cap_s: float) -> float:
    """Seconds between probes of a service that is down: the upper half of the ceiling.

    A probe must not come at once (full jitter may draw 0) and not later than cap_s.
    """
    return (0.5 + 0.5 * draw) * ceiling(failures, base_s=base_s, cap_s=cap_s)
