"""What every folder of tests shares. Its presence makes `processes` importable from all of them."""

import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import processes
import pytest
import structlog
from hypothesis import settings
from zygote import Zygote

HERE = Path(__file__).parent

# How long an example takes says more about the machine than about syncd.
settings.register_profile("syncd", deadline=None)
settings.load_profile("syncd")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes that are no short text are known by their place: the time of day may be in them.

    gzip writes it there, and workers that start in different seconds would disagree on a name.
    """
    if isinstance(val, bytes):
        readable = len(val) <= 40 and all(32 <= byte < 127 for byte in val)
        return None if readable else argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes its time from all others comes first. Then those marked `alone`, one after the
    other: later each would have to wait for the longest of the tests that run, and all others for
    it."""
    items.sort(key=lambda item: (not marked(item, "background"), not marked(item, "alone")))


def marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run side by side, but one marked `alone` has the machine for itself; one in the
    background is not in its way.

    Everybody passes the turnstile before the room, so that whoever wants the room alone gets it
    as soon as those in it have left.
    """
    if marked(item, "background"):
        return (yield)
    alone = marked(item, "alone")
    with HERE.joinpath("processes.py").open() as turnstile, Path(__file__).open() as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Closing is not enough: a child process may have inherited it.
            fcntl.flock(room, fcntl.LOCK_UN)


@pytest.fixture(scope="session", autouse=True)
def zygote() -> Iterator[None]:
    """Most of what a start of `syncd` costs is spared. With SYNCD_TESTS_EXEC set it is a user's."""
    if os.environ.get("SYNCD_TESTS_EXEC"):
        yield
        return
    processes.zygote = born = Zygote()
    try:
        yield
    finally:
        processes.zygote = None
        born.end()


@pytest.fixture(autouse=True)
def log_anew() -> Iterator[None]:
    """What a test has set up for the log holds for that test alone."""
    yield
    structlog.reset_defaults()
