"""What a minute has held, at any speed."""

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.minute import Minute


def test_any_number_a_second_is_counted() -> None:
    minute = Minute()
    for request in range(300_000):
        minute.add(1, 1000.0 + request / 5000)

    assert minute.per_s(1060.0 - 0.001) == 5000.0
    assert len(minute.counts) == 60


def test_what_is_older_than_a_minute_counts_no_more() -> None:
    minute = Minute()
    minute.add(120, 7.5)

    assert minute.per_s(66.9) == 2.0
    assert minute.per_s(67.0) == 0.0


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 59)), max_size=50))
def test_what_is_taken_back_at_once_was_never_there(added: list[tuple[int, float]]) -> None:
    minute = Minute()
    for n, at in sorted(added, key=lambda one: one[1]):
        minute.add(n, at)
        minute.add(-n, at)

    assert minute.per_s(59.0) == 0.0
