"""An event loop whose clock jumps to the next timer instead of waiting for it."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Stuck(Exception):
    """Nothing is ready and no timer is set: whoever waits, waits for ever."""


class _Selector(selectors.SelectSelector):
    """Waiting is a leap of the clock. There is nothing outside that could become ready."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns_left = -1
        self.strike: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        if self.turns_left >= 0:
            self.turns_left -= 1
            if self.turns_left < 0 and self.strike is not None:
                self.strike()
                return []
        if timeout is None:
            raise Stuck
        if timeout > 0.0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: no thread, no socket, no real time reaches it."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def strike_in(self, turns: int, strike: Callable[[], None]) -> None:
        """Call `strike` that many turns of the loop from now, whoever stands at which await."""
        self._virtual.turns_left, self._virtual.strike = turns, strike

    def spare(self) -> None:
        """Forget the strike."""
        self._virtual.turns_left = -1
