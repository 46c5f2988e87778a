"""A signal that ends a command as ^C does: in order, with the exit code that shells expect."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


@dataclass(slots=True)
class Heard:
    """Which signal has come, if any."""

    exit_code: int | None = None


class Stopped(KeyboardInterrupt):
    """A signal has come."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def heeding(*numbers: signal.Signals) -> Iterator[None]:
    """The first of these signals raises Stopped in the block; what comes after it changes nothing.

    What whoever started the command wants to be ignored is ignored.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number in numbers if before[number] is not signal.SIG_IGN]
    stopped = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            return  # it came before the first one was heeded
        stopped = True
        ignore(*heeded)
        raise Stopped(number)

    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        if not stopped:
            for number in heeded:
                signal.signal(number, before[number])


@contextmanager
def hearing(heard: Heard, *numbers: signal.Signals) -> Iterator[None]:
    """The same for a block that must not be broken off: it ends by itself by what was heard."""
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number in numbers if before[number] is not signal.SIG_IGN]

    def note(number: int, _frame: FrameType | None) -> None:
        heard.exit_code = heard.exit_code or 128 + number

    for number in heeded:
        signal.signal(number, note)
    try:
        yield
    finally:
        if heard.exit_code is None:
            for number in heeded:
                signal.signal(number, before[number])


def ignore(*numbers: signal.Signals) -> None:
    """From now on these change nothing, up to the very end.

    They are held back: of one that came just now Python would complain if it were to be ignored.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
