"""Looks that find nothing take little of the time, however often there is a reason for one."""

import pytest

from syncd.core.looks import AT_ONCE_S, LONGEST_S, SHARE, Looks


@pytest.mark.parametrize("look_s", [0.0005, 0.002, 0.015])
def test_without_end_they_take_their_share(look_s: float) -> None:
    looks, now, spent = Looks(), 1000.0, 0.0
    while now < 1600.0:
        looks = looks.found_nothing(now, now + look_s)
        now += look_s
        now += looks.pause_s(now)
        spent += look_s

    assert spent == pytest.approx(SHARE * 600.0, rel=0.05)


def test_a_few_come_at_once() -> None:
    looks, now = Looks(), 1000.0
    for _ in range(20):
        looks = looks.found_nothing(now, now + AT_ONCE_S / 20)
        now += AT_ONCE_S / 20

    assert looks.pause_s(now) == 0.0


def test_on_a_slow_disk_a_pause_has_its_bound() -> None:
    looks = Looks()
    for now in range(1000, 1100, 10):
        looks = looks.found_nothing(now, now + 9.0)

    assert looks.pause_s(now + 9.0) == pytest.approx(LONGEST_S)


def test_what_was_spent_is_forgotten_with_time() -> None:
    looks = Looks().found_nothing(1000.0, 1001.0)

    assert looks.found_nothing(1100.0, 1100.01).pause_s(1100.01) == 0.0


def test_time_in_which_there_was_no_reason_for_a_look_is_part_of_the_pause() -> None:
    looks = Looks().found_nothing(1000.0, 1001.0)

    assert looks.pause_s(1001.0 + LONGEST_S / 4) == pytest.approx(0.75 * LONGEST_S)
    assert looks.pause_s(1001.0 + 8.0) == 0.0
