"""Text for people: counts, spans of time, and values that cannot steer the terminal."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime


def plain(value: object) -> str:
    """A value from outside on one line: control characters appear as escapes."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paragraph(name: str, text: str) -> Iterator[str]:
    """`text` beside its name, in lines as long as the terminal has it."""
    return wrapped(text, f"  {name:<12} ", " " * 15)


def wrapped(text: str, begin: str, indent: str = "") -> Iterator[str]:
    """`text` in lines as long as the terminal has it, the first behind `begin`."""
    width = max(40, shutil.get_terminal_size().columns)
    yield from textwrap.wrap(
        text,
        width,
        initial_indent=begin,
        subsequent_indent=indent or begin,
        break_on_hyphens=False,
    )


def next_steps(advice: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Commands that would help, each with its reason; nothing where there are none."""
    if advice:
        width = max(len(command) for command, _ in advice)
        yield from ("", "Next:", *(f"  {command:<{width}}   {why}" for command, why in advice))


def named(ids: Sequence[int], among: int) -> str:
    """`17, 18 and 19`, or the first of them and how many there are more."""
    if among > len(ids):
        return f"{', '.join(map(str, ids))} and {count(among - len(ids))} more"
    *before, last = map(str, ids)
    return f"{', '.join(before)} and {last}" if before else last


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
