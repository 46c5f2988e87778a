"""Histories with every fault keep every promise."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from syncd import log
from syncd.selftest import drawn, play
from syncd.selftest.plan import FAULTS

Figures = list[tuple[dict[str, Any], str]]

pytestmark = pytest.mark.timeout(900)

SEEDS = int(os.environ.get("SYNCD_SEEDS", "1600"))  # a minute of two cores, while others wait

# What besides the vendor's faults must have happened, or nothing of it is proved.
HAPPENINGS = (
    *(
        "outage",
        "cursed",
        "wrong_token",
        "401",
        "late after a kill",
        "clock step",
        "reload",
        "pause",
    ),
    *("retry", "discard", "hold", "release", "rows by SQL", "locked by a producer"),
    *("database is locked", "disk I/O error", "database or disk is full"),
    *("killed at its start", "killed at its stop", "clock step while nobody runs", "boot"),
    *("disk I/O error, yet committed", "producers told to try again"),
)


@pytest.fixture(scope="module")
def played() -> Figures:
    """What so many histories have come to; all that was broken is told on stderr.

    They take what other tests leave of the machine: the virtual clock does not mind. `make faults`
    plays more of them, `syncd selftest` any number.
    """
    half = SEEDS // 2
    with ExitStack() as stack:
        players = [stack.enter_context(playing(half, first)) for first in (0, half)]
        told = [player.communicate(timeout=850) for player in players]
    assert all(out for out, _ in told), told
    return [(json.loads(out), err) for out, err in told]


@contextmanager
def playing(seeds: int, first: int) -> Iterator["subprocess.Popen[str]"]:
    """`syncd selftest`, on a core that nobody else wants; it ends with the block."""
    command = [sys.executable, "-m", "syncd", "selftest", "--json"]
    command += ["--seeds", str(seeds), "--seed", str(first)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as player:
        try:
            os.sched_setscheduler(player.pid, os.SCHED_IDLE, os.sched_param(0))
            yield player
        finally:
            player.kill()


@pytest.mark.background
def test_histories_keep_every_promise(played: Figures) -> None:
    assert sum(figures["histories"] for figures, _ in played) == SEEDS
    assert [(figures["failed"], err[:4000]) for figures, err in played if figures["failed"]] == []


def test_silence_that_is_asked_for_after_the_last_fault_breaks_no_promise() -> None:
    """By an answer to what was on its way: it lasts longer than all the rest may take."""
    log.setup("critical")

    assert play(drawn(5001105)).problems == []


@pytest.mark.background
def test_much_is_delivered_and_killed_in_them(played: Figures) -> None:
    """A history in which nothing happens proves nothing."""
    assert sum(figures["delivered"] for figures, _ in played) > 10 * SEEDS
    assert sum(figures["kills"] for figures, _ in played) > SEEDS


@pytest.mark.background
def test_every_fault_has_happened_in_them(played: Figures) -> None:
    met = Counter[str]()
    for figures, _ in played:
        met.update(figures["faults"])
    assert [name for name in (*FAULTS, *HAPPENINGS) if not met[name]] == []


def test_a_step_of_the_clock_that_is_on_disk_already_makes_no_request_early() -> None:
    """Its commit seemed to fail, so the daemon goes by the old clock for a while yet."""
    log.setup("critical")

    assert play(drawn(71478)).problems == []


def test_a_seed_is_one_history() -> None:
    """The same seed gives the same trace, in another process too."""
    program = (
        "import sys; from syncd import log; from syncd.selftest import drawn, play;"
        "log.setup('critical'); print(*[play(drawn(seed)).trace for seed in range(5)])"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert len(traces) == 1
