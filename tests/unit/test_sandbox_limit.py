"""The sandbox's limit holds in every sliding second, and tells when there will be room."""

from email.utils import parsedate_to_datetime
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from syncd.sandbox import RetryAfter
from syncd.sandbox.limit import SlidingSecond, admit, retry_after_header

arrivals = st.lists(st.floats(0, 0.6), max_size=80).map(lambda gaps: list(accumulate(gaps)))
rates = st.integers(1, 12)


@given(arrivals, rates)
def test_no_sliding_second_admits_more_than_the_rate(instants, rate):
    second = SlidingSecond()

    admitted = [now for now in instants if admit(second, rate, now)]

    assert all(
        later - first >= 1.0 for first, later in zip(admitted, admitted[rate:], strict=False)
    )


@given(arrivals, rates)
def test_a_request_is_refused_only_where_the_last_second_is_full(instants, rate):
    second = SlidingSecond()
    admitted = []

    for now in instants:
        recent = sum(now - earlier < 1.0 for earlier in admitted)
        passed = admit(second, rate, now)
        assert passed == (recent < rate)
        admitted += [now] * passed


@given(arrivals, rates)
def test_whoever_waits_as_told_is_admitted(instants, rate):
    second = SlidingSecond()
    for now in instants:
        if not admit(second, rate, now):
            back = now + second.room_in_s(now, rate) + 1e-6

            assert admit(second, rate, back)
            return


@given(arrivals)
def test_a_rate_of_zero_admits_all(instants):
    second = SlidingSecond()

    assert all(admit(second, 0, now) for now in instants)


@given(st.floats(0, 1), st.floats(1.7e9, 1.8e9))
def test_neither_form_of_retry_after_is_too_early(wait_s, wall_s):
    seconds = retry_after_header(RetryAfter.SECONDS, wait_s, wall_s)
    date = retry_after_header(RetryAfter.DATE, wait_s, wall_s)

    assert int(seconds) >= max(wait_s, 1)
    assert parsedate_to_datetime(date).timestamp() >= wall_s + wait_s
    assert retry_after_header(RetryAfter.NONE, wait_s, wall_s) is None
