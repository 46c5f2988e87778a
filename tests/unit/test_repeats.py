"""The same thing again and again: said a few times, then counted."""

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.repeats import MOST_KEYS, WINDOW_S, Repeats


def test_the_first_ones_are_said_and_the_rest_of_the_window_is_left_out() -> None:
    repeats: Repeats[str] = Repeats()

    heard = [repeats.heard("full", f"full {at}", at, most=2) for at in range(5)]

    assert heard == [0, 0, None, None, None]


def test_what_was_left_out_is_told_with_its_count_when_the_window_is_over() -> None:
    repeats: Repeats[str] = Repeats()
    for at in range(10):
        repeats.heard("full", f"full at {at}", at, most=1)

    early, due, again = repeats.due(WINDOW_S - 1), repeats.due(WINDOW_S), repeats.due(WINDOW_S)

    assert (early, due, again) == ([], [("full at 9", 9)], [])


def test_the_next_one_after_the_window_says_how_many_were_left_out() -> None:
    repeats: Repeats[str] = Repeats()
    for at in range(4):
        repeats.heard("full", "full", at, most=1)

    assert repeats.heard("full", "full", WINDOW_S, most=1) == 3
    assert repeats.heard("full", "full", WINDOW_S + 1, most=1) is None


def test_different_things_are_counted_apart() -> None:
    repeats: Repeats[str] = Repeats()

    assert repeats.heard("a", "a", 0, most=1) == 0
    assert repeats.heard("b", "b", 0, most=1) == 0
    assert repeats.heard("a", "a", 1, most=1) is None


def test_starting_over_tells_what_is_pending_and_makes_everything_new() -> None:
    repeats: Repeats[str] = Repeats()
    for at in range(3):
        repeats.heard("a", "a", at, most=1)
    repeats.heard("b", "b", 0, most=1)

    assert repeats.all() == [("a", 2)]
    assert repeats.heard("a", "a", 4, most=1) == 0


def test_memory_is_bounded_however_many_different_things_there_are() -> None:
    repeats: Repeats[int] = Repeats()
    for number in range(3 * MOST_KEYS):
        repeats.heard(number, number, 0.0, most=1)

    remembered = sum(
        repeats.heard(number, number, 1.0, most=1) is None for number in reversed(range(1536))
    )

    assert 0 < remembered <= MOST_KEYS


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 200)), max_size=60), st.integers(1, 4)
)
def test_nothing_is_lost_and_little_is_said(steps: list[tuple[str, float]], most: int) -> None:
    """Said and left out together are all there were; a window holds no more lines than allowed."""
    repeats: Repeats[str] = Repeats()
    said: list[tuple[str, float]] = []
    counted, now = 0, 0.0

    for key, step_s in steps:
        now += step_s
        left_out = repeats.heard(key, key, now, most=most)
        if left_out is not None:
            said.append((key, now))
            counted += left_out
    counted += sum(n for _, n in repeats.all())

    assert len(said) + counted == len(steps)
    for key, at in said:
        assert sum(k == key and at <= t < at + WINDOW_S for k, t in said) <= 2 * most
