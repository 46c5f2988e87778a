"""A late request is found out under every reading of a merge, and sending again mends it."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from merging import going_again, in_order, objects, patches, scalars

from syncd.core.answer import Run
from syncd.core.fold import NAME, Waiting, fold
from syncd.core.suspect import Suspect, at_risk, shown, unconfirmed
from syncd.selftest.merge import MODELS, applied


def run_of(metadata: dict[str, Any], name: str | None = "n") -> Run:
    return Run("run", b"{}", "PROCESSED", name, json.dumps(metadata))


@given(
    base=objects,
    given_in_order=st.lists(objects, min_size=2, max_size=5),
    carried=st.integers(1, 4),
    lands_after=st.integers(1, 5),
    model=st.sampled_from(MODELS),
)
@example({}, [{"k": {"b": 1}}, {"k": {"a": 2}}], 1, 5, "deep")
@example({}, [{"k": {"a": 1}}, {"k": 1}, {"k": {}}], 1, 5, "deep")
@example({}, [{"k": 1}, {"k": {"b": 5}}, {"k": {"c": 1}}], 1, 2, "deep")
@example({}, [{"k": {"a": 3, "b": 5}}, {"k": {"a": 3}}, {"m": 1}], 1, 2, "shallow")
@example({}, [{"k": {"b": 1}}, {"k": {"b": 5}}, {"k": {"c": 1}}], 1, 2, "deep")
def test_a_late_request_that_changes_anything_is_found_out(
    base: dict[str, Any],
    given_in_order: list[dict[str, Any]],
    carried: int,
    lands_after: int,
    model: str,
) -> None:
    """It carried the oldest patches; it is applied after these, and some others, were delivered."""
    delivered = patches(*given_in_order)
    late = fold(delivered[: min(carried, len(delivered))])
    zombie = json.loads(late.body).get("metadata", {})
    right = in_order(model, base, delivered)
    lands_after = min(lands_after, len(delivered))
    found, seen = base, dict[str, str]()
    for number, patch in enumerate(delivered, start=1):
        found = in_order(model, found, [patch])
        seen |= shown(run_of(found), [patch])
        if number == lands_after:
            found = applied(model, found, zombie)
    suspect = Suspect("run", 1, late.ids[-1], delivered, seen=seen)

    if lands_after >= late.ids[-1] and found != right:
        keys = unconfirmed(suspect, run_of(found))
        assert keys <= at_risk(suspect)
        assert in_order(model, found, going_again(delivered, keys)) == right


@given(given_in_order=st.lists(st.dictionaries(st.sampled_from("km"), scalars), min_size=1))
def test_a_run_that_is_as_it_should_be_is_left_alone(
    given_in_order: list[dict[str, Any]],
) -> None:
    """With plain values there is no doubt, and so no request too many."""
    delivered = patches(*given_in_order)
    right = in_order("shallow", {}, delivered)

    assert unconfirmed(Suspect("run", 1, 1, delivered), run_of(right)) == frozenset()


whole = st.recursive(
    st.sampled_from([1, 2, "x", True, 1.5]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
).filter(lambda value: isinstance(value, dict))


@given(
    base=objects,
    given_in_order=st.lists(st.dictionaries(st.sampled_from("km"), whole), min_size=1),
    model=st.sampled_from(MODELS),
)
def test_objects_that_are_as_they_were_confirmed_are_left_alone(
    base: dict[str, Any], given_in_order: list[dict[str, Any]], model: str
) -> None:
    """However deep the vendor merges; only a null would leave doubt."""
    delivered, found, seen = patches(*given_in_order), base, dict[str, str]()
    for patch in delivered:
        found = in_order(model, found, [patch])
        seen |= shown(run_of(found), [patch])

    assert unconfirmed(Suspect("run", 1, 1, delivered, seen=seen), run_of(found)) == frozenset()


def test_objects_of_which_no_answer_is_known_are_in_doubt() -> None:
    suspect = Suspect("run", 1, 1, patches({"k": {"v": 1}}, {"k": {"v": 2}}))

    assert unconfirmed(suspect, run_of({"k": {"v": 2}})) == {"k"}


def test_what_is_too_deep_to_be_looked_into_is_in_doubt() -> None:
    suspect = Suspect("run", 1, 1, patches({"k": 1}, {"k": 2}))
    deep = '{"k":2,"deep":' + "[" * 5000 + "]" * 5000 + "}"

    assert unconfirmed(suspect, Run("run", b"{}", "PROCESSED", "n", deep)) == {"k"}


def test_a_value_of_somebody_else_is_left_alone() -> None:
    """Only values that our own patches have given can be older than they should be."""
    suspect = Suspect("run", 1, 1, patches({"k": 1}, {"k": 2}))

    assert unconfirmed(suspect, run_of({"k": "by hand"})) == frozenset()
    assert unconfirmed(suspect, run_of({"k": 1})) == {"k"}


def test_without_a_newer_value_there_is_no_risk() -> None:
    """A late request that says what is there already changes nothing."""
    assert at_risk(Suspect("run", 1, 2, patches({"k": 1}, {"m": 2}))) == frozenset()


def test_a_name_that_the_answer_does_not_carry_is_unconfirmed() -> None:
    """The newest API generation has no name in its answers: it cannot be seen, so it goes again."""
    delivered = [Waiting(1, "old", None), Waiting(2, "new", None)]
    suspect = Suspect("run", 1, 1, delivered)

    assert unconfirmed(suspect, run_of({}, name=None)) == {NAME}
    assert unconfirmed(suspect, run_of({}, name="old")) == {NAME}
    assert unconfirmed(suspect, run_of({}, name="new")) == frozenset()


def test_a_withdrawn_patch_is_seen_when_it_comes_late() -> None:
    """A patch may have been discarded after its request was sent."""
    suspect = Suspect("run", 1, 1, patches({"k": 1}, {"k": 2})[1:], patches({"k": 1}))

    assert unconfirmed(suspect, run_of({"k": 1})) == {"k"}


@pytest.mark.parametrize(
    ("older", "newer", "found", "again"),
    [
        (["a"], ["b"], ["a"], True),
        (["a"], ["b"], ["b"], False),
        (["a: 1", "x"], ["b"], ["x", "a1"], True),
        (["a"], ["b: 1", "!"], ["b1"], False),
        (["é"], ["ü"], ["é"], True),
        (["é"], ["ü"], ["ü"], False),
        (["é"], ["ü"], [], True),  # nobody can tell
        (["a"], ["b"], ["of somebody else"], False),
        (["a"], ["b"], None, True),  # it is not shown
    ],
)
def test_usage_tags_are_compared_as_the_vendor_cleans_them(
    older: list[str], newer: list[str], found: list[str] | None, again: bool
) -> None:
    key = "extend:usage_tags"
    suspect = Suspect("run", 1, 1, patches({key: older}, {key: newer}))
    run = run_of({} if found is None else {key: found})

    assert unconfirmed(suspect, run) == ({key} if again else frozenset())


@pytest.mark.parametrize("wrapped", ["%s", "[%s]", '{"a": %s}'], ids=["plain", "list", "object"])
@pytest.mark.parametrize(
    ("older", "newer", "shown_as", "again"),
    [
        ("7", "1.0", "1", False),
        ("1.5", "100", "1E+2", False),
        ("1.5", "1.50", "1.5", False),
        ("9007199254740992", "9007199254740993", "9007199254740992", True),
        ("9007199254740992", "9007199254740993", "9007199254740993", False),
        ("0.1", "0.10000000000000000001", "0.1", True),
        (str(2**80), str(2**80 + 1), str(2**80), True),
        # Of a vendor that keeps doubles: the newest, the older one, and who knows.
        ("7", "9007199254740993", "9007199254740992", False),
        (str(2**80 + 1), "7", "1.2089258196146292e+24", True),
        (str(2**80), str(2**80 + 1), "1.2089258196146292e+24", True),
        ("1e400", "1e500", "1e400", True),
        ("1E1000000000", "2E1000000000", "1E1000000000", True),
        ("7", "1E1000000000", "10E999999999", False),
        ("7", "1E" + "9" * 5000, "1E" + "9" * 5000, False),
    ],
)
def test_a_number_is_what_its_digits_say(
    older: str, newer: str, shown_as: str, again: bool, wrapped: str
) -> None:
    """However it is written. What a vendor's doubles do not tell apart goes again."""
    older, newer, found = ('{"k": %s}' % (wrapped % text) for text in (older, newer, shown_as))
    delivered = [Waiting(1, None, older), Waiting(2, None, newer)]
    run = Run("run", b"{}", "PROCESSED", "n", found)
    suspect = Suspect("run", 1, 1, delivered, seen=shown(run, delivered))

    assert unconfirmed(suspect, run) == ({"k"} if again else frozenset())
