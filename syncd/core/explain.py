"""What of a status explains why something still waits, for whoever waits for it."""

from collections.abc import Iterator, Mapping
from typing import Any


def explanations(status: Mapping[str, Any], *, goes_on: bool) -> Iterator[str]:
    """A line each. What is on its way may be so by the state of the daemon, what is not is not."""
    daemon = status["daemon"]
    if goes_on and not daemon["running"]:
        yield "nothing moves until the daemon runs: waiting for it"
    elif goes_on and daemon["state"] in ("paused", "blocked", "waiting"):
        yield f"{daemon['state']}: {daemon['reason']}"
    yield from status["troubles"]


def gist(line: str) -> str:
    """What a line says but for its figures: counts and instants are others at every look."""
    return "".join(letter for letter in line if letter.isalpha())
