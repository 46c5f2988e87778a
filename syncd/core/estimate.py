"""When it will be done: what waits, at the pace in use, with the folding seen lately."""

from syncd.core.sending import Sending


def eta_s(
    pending: int, *, rate_per_s: float, patches_per_request: float, closed_for_s: float
) -> float | None:
    """Seconds until nothing waits any more; 0 when nothing does, None when nothing moves."""
    if pending == 0:
        return 0.0
    if rate_per_s <= 0:
        return None
    requests = pending / max(1.0, patches_per_request)
    return closed_for_s + requests / rate_per_s


def turn_s(requests_ahead: int, sending: Sending, now: float) -> float | None:
    """Seconds until a request goes that has so many before it; None while nothing goes."""
    if not sending.requests_per_s:
        return None
    closed_for_s = max(0.0, (sending.closed_until or now) - now)
    return closed_for_s + requests_ahead / sending.requests_per_s
