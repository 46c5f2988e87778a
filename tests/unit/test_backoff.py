"""Backoff: full jitter below a doubling ceiling; patience with a service that is down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import backoff

FAILURES = st.integers(0, 1_000_000)
DRAWS = st.floats(0, 1, exclude_max=True)
BASE_S = st.floats(0.001, 600)
CAP_S = st.floats(0.001, 86_400)


@given(FAILURES, DRAWS, BASE_S, CAP_S)
def test_a_delay_is_never_negative_and_always_below_the_cap(
    failures: int, draw: float, base_s: float, cap_s: float
) -> None:
    assert 0.0 <= backoff.delay(failures, draw, base_s=base_s, cap_s=cap_s) < cap_s


@given(st.integers(0, 100), BASE_S, CAP_S)
def test_the_ceiling_doubles_until_the_cap(failures: int, base_s: float, cap_s: float) -> None:
    here = backoff.ceiling(failures + 1, base_s=base_s, cap_s=cap_s)
    there = backoff.ceiling(failures + 2, base_s=base_s, cap_s=cap_s)

    assert there in (2 * here, cap_s)
    assert there >= here


@pytest.mark.parametrize(
    ("failures", "ceiling_s"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0)]
)
def test_the_first_failure_waits_below_the_base(failures: int, ceiling_s: float) -> None:
    assert backoff.ceiling(failures, base_s=1.0, cap_s=300.0) == ceiling_s


def test_the_whole_range_below_the_ceiling_is_used() -> None:
    draws = [n / 100 for n in range(100)]

    delays = [backoff.delay(3, draw, base_s=1.0, cap_s=300.0) for draw in draws]

    assert (min(delays), max(delays)) == (0.0, pytest.approx(3.96))


@given(FAILURES, DRAWS, BASE_S, CAP_S)
def test_a_probe_comes_neither_at_once_nor_after_the_cap(
    failures: int, draw: float, base_s: float, cap_s: float
) -> None:
    ceiling = backoff.ceiling(failures, base_s=base_s, cap_s=cap_s)

    wait = backoff.patient(failures, draw, base_s=base_s, cap_s=cap_s)

    assert ceiling / 2 <= wait <= ceiling <= cap_s
