"""The faults spec says what it means, or says why it means nothing."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.sandbox import Faults, parse_faults
from syncd.sandbox.faults import KINDS, marked

kinds = st.one_of(st.sampled_from(KINDS), st.integers(400, 599).map(str))
seconds = st.floats(0, 1e6)


@st.composite
def some_faults(draw):
    chosen = draw(st.lists(kinds, unique=True, max_size=8))
    share = 1 / max(1, len(chosen))
    chances = tuple((kind, draw(st.floats(0, share * 0.999))) for kind in chosen)
    return Faults(chances, slow_s=draw(seconds), zombie_s=draw(seconds))


@given(some_faults())
def test_the_spec_of_any_faults_parses_to_the_same_faults(faults):
    assert parse_faults(str(faults)) == faults


def test_an_empty_spec_has_no_faults_and_takes_no_chance():
    chance = Random(1)
    before = chance.getstate()

    assert parse_faults("") == parse_faults(" , ") == Faults()
    assert parse_faults("").draw(chance) is None
    assert chance.getstate() == before


def test_blanks_and_durations_are_understood():
    faults = parse_faults(" 500 = 0.1, drop=.02 ,slow_s=0.3,zombie_s=4 ")

    assert faults == Faults((("500", 0.1), ("drop", 0.02)), slow_s=0.3, zombie_s=4.0)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("banana=0.1", "allowed are drop, drop_after"),
        ("200=0.1", "a status from 400 to 599"),
        ("600=0.1", "a status from 400 to 599"),
        ("0500=0.1", "a status from 400 to 599"),
        ("500", "a probability from 0 to 1"),
        ("500=", "a probability from 0 to 1"),
        ("500=often", "a probability from 0 to 1"),
        ("500=nan", "a probability from 0 to 1"),
        ("500=-0.1", "a probability from 0 to 1"),
        ("500=1.1", "a probability from 0 to 1"),
        ("slow_s=-1", "seconds, 0 or more"),
        ("slow_s=inf", "seconds, 0 or more"),
        ("500=0.1,500=0.1", "given twice"),
        ("500=0.6,drop=0.5", "the probabilities make 1.1, must be 1 at most"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line_that_says_what_is_allowed(spec, part):
    with pytest.raises(ValueError, match=part) as refused:
        parse_faults(spec)

    assert str(refused.value).startswith("faults: ")
    assert "\n" not in str(refused.value)


def test_faults_are_drawn_as_often_as_the_spec_says():
    faults = parse_faults("500=0.3,drop=0.1,hang=0")
    chance = Random(7)

    drawn = [faults.draw(chance) for _ in range(20_000)]

    assert drawn.count("500") == pytest.approx(6_000, rel=0.05)
    assert drawn.count("drop") == pytest.approx(2_000, rel=0.1)
    assert drawn.count("hang") == 0


@given(st.integers())
def test_a_certain_fault_is_always_drawn(seed):
    assert parse_faults("drop=1").draw(Random(seed)) == "drop"


@given(kinds)
def test_a_run_id_carries_its_fault(kind):
    assert marked(f"workflow_run_1~{kind}") == marked(f"a~{kind}~b") == kind
    assert marked(f"workflow_run_{kind}") is None
