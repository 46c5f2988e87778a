"""Saying the same thing once in a while instead of each time, and how often it was left out."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

WINDOW_S = 300.0
MOST_KEYS = 512


@dataclass(slots=True)
class _Heard(Generic[T]):
    since: float
    said: int
    left_out: int
    last: T


class Repeats(Generic[T]):
    """What was said within the last WINDOW_S seconds. Instants are seconds on one steady clock.

    At most MOST_KEYS different things are remembered; beyond, the oldest is forgotten, and said
    again when it comes again.
    """

    def __init__(self) -> None:
        self._heard: dict[Hashable, _Heard[T]] = {}

    def heard(self, key: Hashable, thing: T, now: float, *, most: int) -> int | None:
        """Say the first `most` of a window: how many were left out before this one. Else None."""
        entry = self._heard.get(key)
        left_out = 0
        if entry is None or now - entry.since >= WINDOW_S:
            left_out = entry.left_out if entry else 0
            self._forget(key)
            entry = self._heard[key] = _Heard(now, 0, 0, thing)
        if entry.said < most:
            entry.said += 1
            return left_out
        entry.left_out += 1
        entry.last = thing
        return None

    def due(self, now: float) -> list[tuple[T, int]]:
        """The last of each thing left out in a window that is over, and how many there were.

        Such windows are forgotten: saying the thing begins the next one.
        """
        over = [key for key, entry in self._heard.items() if now - entry.since >= WINDOW_S]
        return self._told(over)

    def all(self) -> list[tuple[T, int]]:
        """The same for every window, over or not: from here on, everything is new."""
        return self._told(list(self._heard))

    def _forget(self, key: Hashable) -> None:
        self._heard.pop(key, None)
        if len(self._heard) >= MOST_KEYS:
            del self._heard[next(iter(self._heard))]

    def _told(self, keys: list[Hashable]) -> list[tuple[T, int]]:
        entries = [self._heard.pop(key) for key in keys]
        return [(entry.last, entry.left_out) for entry in entries if entry.left_out]
