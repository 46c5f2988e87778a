"""Bugs planted on purpose do not stay hidden from the histories."""

from collections.abc import Callable, Iterator

import planted
import pytest

from syncd import log
from syncd.selftest import drawn, play

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
    "ignore_the_clock": (28,),
    "never_break": (971, 1050),
    "probe_at_once": (390, 581),
    "read_back_without_end": (18, 22),
    "reload_breaks_the_silence": (19, 33),
    "reload_leaves_the_limit": (32, 45),
    "shorten_the_silence": (33, 148),
    "sleep_through_lost_wakes": (48, 63),
    "try_again_at_once": (117, 59),
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Thousands of planned failures are not worth a line each."""
    log.setup("critical")


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
