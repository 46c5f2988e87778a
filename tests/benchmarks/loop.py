"""The event loop that the daemon runs on, for those that are compared with it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from syncd.process import loop_factory

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on the same kind of loop as the daemon does here."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def name() -> str:
    """Which kind that is."""
    return "asyncio" if loop_factory() is None else "uvloop"
