"""Histories with every fault keep every promise; bugs planted on purpose do not stay hidden."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import planted
import pytest

from syncd import log
from syncd.selftest import drawn, play
from syncd.selftest.plan import FAULTS

SEEDS = int(os.environ.get("SYNCD_SEEDS", "400"))
HIDDEN_FOR = 2000  # seeds after which a planted bug counts as missed

# Where a bug that is rare was last seen: it is looked for there first, then everywhere.
SEEN_AT = {
    "believe_a_lost_answer": (15, 27),
    "call_a_cut_drain_clean": (568,),
    "do_not_hear_a_pause": (27, 29),
    "do_not_see_a_step_while_nobody_runs": (81, 109, 28),
    "drop_the_fence": (112, 152, 45),
    "forget_an_unclean_stop": (112, 152),
    "give_up_on_a_full_disk": (26, 35),
    "never_break": (89, 971),
    "probe_at_once": (390, 581),
    "read_back_without_end": (18, 22),
    "reload_breaks_the_silence": (19, 33),
    "reload_leaves_the_limit": (32, 45),
    "shorten_the_silence": (33, 148),
    "sleep_through_lost_wakes": (48, 63),
    "try_again_at_once": (117, 59),
}

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


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Thousands of planned failures are not worth a line each."""
    log.setup("critical")


def test_histories_keep_every_promise() -> None:
    """As many as fit; `make faults` plays more, `syncd selftest` any number."""
    half = SEEDS // 2
    command = [sys.executable, "-m", "syncd", "selftest", "--json", "--seeds", str(half), "--seed"]
    players = [
        subprocess.Popen(
            [*command, str(first)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in (0, half)
    ]
    met: Counter[str] = Counter()
    for player in players:
        out, err = player.communicate(timeout=1800)
        assert player.returncode == 0, err[:4000]

        figures = json.loads(out)
        assert figures["histories"] == half
        # A history in which nothing happens proves nothing.
        assert figures["delivered"] > 10 * half
        assert figures["kills"] > half
        met.update(figures["faults"])
    assert [name for name in (*FAULTS, *HAPPENINGS) if not met[name]] == []


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


def seeds_for(bug: str) -> Iterator[int]:
    """Where to look for a bug: where it was last seen, then from the first seed on."""
    yield from SEEN_AT.get(bug, ())
    yield from range(HIDDEN_FOR)


@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(
    bug: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """A harness that catches nothing proves nothing."""
    bug(monkeypatch)
    record_property("planted", 1)

    assert any(play(drawn(seed)).problems for seed in seeds_for(bug.__name__))
    record_property("caught", 1)
