"""A spool of its own for each test, on a clock that stands."""

from pathlib import Path

import pytest
from claiming import SETTLE_S, Clock

from syncd.spool import Spool


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Spool:
    spool = Spool(tmp_path / "spool", SETTLE_S, 1 << 30, clock=clock)
    spool.prepare()
    return spool
