"""Text for people: counts, spans of time, and values that cannot steer the terminal."""

from datetime import UTC, datetime


def plain(value: object) -> str:
    """A value from outside on one line: control characters appear as escapes."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def many(number: int, noun: str, plural: str = "") -> str:
    """`1 patch`, `2 patches`."""
    if number == 1:
        return f"1 {noun}"
    return f"{count(number)} {plural or noun + ('es' if noun.endswith('h') else 's')}"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def seconds_since(instant: str | None, now: float) -> float | None:
    """How long ago an instant of our JSON was; negative if it is to come."""
    return None if instant is None else now - datetime.fromisoformat(instant).timestamp()


def ago(instant: str | None, now: float) -> str:
    """`3 min ago`, `in 12 s`, or nothing."""
    seconds = seconds_since(instant, now)
    if seconds is None:
        return ""
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def clock(now: float) -> str:
    """An instant for people who compare it with a log: UTC, to the second."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
