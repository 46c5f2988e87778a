"""What every folder of tests shares. Its presence makes `processes` importable from all of them."""

import fcntl
from collections.abc import Generator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run side by side, but one marked `alone` has the machine for itself.

    Everybody passes the turnstile before the room, so that whoever wants the room alone gets it
    as soon as those in it have left.
    """
    alone = item.get_closest_marker("alone") is not None
    with HERE.joinpath("processes.py").open() as turnstile, Path(__file__).open() as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Closing is not enough: a child process may have inherited it.
            fcntl.flock(room, fcntl.LOCK_UN)
