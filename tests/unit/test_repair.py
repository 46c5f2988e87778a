"""A run is mended under every reading of a merge, by no more than that takes."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from merging import going_again, in_order, objects, patches

from syncd.core.fold import NAME, Waiting, body_of, fold
from syncd.selftest.merge import MODELS, applied


def sent(delivered: list[Waiting], *keys: str) -> list[tuple[int, Any]]:
    """The patches that go again for these keys, and what with."""
    return [(patch.id, json.loads(body_of(patch))) for patch in going_again(delivered, keys)]


deep = st.recursive(objects, lambda inner: st.dictionaries(st.sampled_from("km"), inner))


@given(
    base=deep,
    given_in_order=st.lists(deep, min_size=1, max_size=6),
    late=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=3),
    model=st.sampled_from(MODELS),
)
@example({}, [{"k": {"a": 1}, "m": 1}, {"k": {"b": 1}, "m": 2}], [(0, 1)], "deep")
@example({}, [{"m": {"a": 1}, "k": 1}, {"m": {"b": 1}}, {"k": 2}], [(0, 1)], "shallow")
@example({}, [{"k": {"a": {"b": 1}}}, {"k": {"a": {"k": 1}}}], [(0, 1), (0, 2)], "deep")
def test_a_run_is_mended_as_often_as_it_is_set_back(
    base: dict[str, Any],
    given_in_order: list[dict[str, Any]],
    late: list[tuple[int, int]],
    model: str,
) -> None:
    """Whatever the late requests carry: what earlier repairs left out is not missing in later."""
    originals = delivered = patches(*given_in_order)
    right = found = in_order(model, base, delivered)
    for at, count in late:
        first = min(at, len(delivered) - 1)
        zombie = json.loads(fold(originals[first : first + count]).body)
        found = applied(model, found, zombie.get("metadata", {}))
        wrong = {key for key in found.keys() | right.keys() if found.get(key) != right.get(key)}
        going = going_again(delivered[first:], wrong)
        found = in_order(model, found, going)
        mended = {patch.id: patch for patch in going}
        delivered = [mended.get(patch.id, patch) for patch in delivered]

        assert found == right


def test_of_plain_values_only_the_newest_go_again() -> None:
    delivered = patches({"k": 1, "m": 1}, {"k": 2, "doc": {"v": 1}}, {"k": 3}, {"m": 2})

    assert sent(delivered, "k") == [(3, {"metadata": {"k": 3}})]


def test_a_patch_that_goes_again_leaves_out_what_newer_ones_have_set() -> None:
    delivered = patches({"k": 1, "m": 1, "doc": {"v": 1}}, {"k": 2}, {"doc": {"v": 2, "w": 1}})

    assert sent(delivered, "m") == [(1, {"metadata": {"m": 1}})]


def test_objects_go_again_in_order_unless_newer_ones_set_all_of_them() -> None:
    delivered = patches(
        {"doc": {"v": 1, "w": 1}},
        {"doc": "none"},
        {"doc": {"v": 2}},
        {"doc": {"w": 2, "x": {"y": 1}}},
        {"doc": {"v": 3, "x": 1}},
    )

    assert [patch_id for patch_id, _ in sent(delivered, "doc")] == [2, 4, 5]


def test_arrays_go_again_in_order() -> None:
    """It is not documented that they are not merged."""
    delivered = patches({"k": [1, 2]}, {"k": 1}, {"k": [3, 4]}, {"k": [5]})

    assert [patch_id for patch_id, _ in sent(delivered, "k")] == [2, 3, 4]


def test_an_older_object_that_goes_again_takes_the_newer_ones_along() -> None:
    """Where nothing is merged it would replace them."""
    delivered = patches({"k": {"a": 1}, "m": {"a": 1}}, {"m": {"b": 1}}, {"k": {"b": 1}})

    assert [patch_id for patch_id, _ in sent(delivered, "k")] == [1, 2, 3]


def test_only_the_newest_name_goes_again() -> None:
    delivered = [
        Waiting(1, "old", None),
        Waiting(2, "new", '{"k":1}'),
        Waiting(3, None, '{"k":2}'),
    ]

    assert sent(delivered, NAME) == [(2, {"name": "new", "metadata": {}})]


def test_with_what_cannot_be_taken_apart_all_goes_again() -> None:
    """Nobody knows what it sets."""
    delivered = patches({"k": 1}, {"k": 2}, {"m": 1})
    delivered[1] = Waiting(2, None, '{"k":' + "[" * 1500 + "]" * 1500 + "}")

    assert [patch.id for patch in going_again(delivered, ["m"])] == [1, 2, 3]


def test_a_value_too_deep_to_be_looked_into_goes_again_with_what_came_before() -> None:
    delivered = patches({"k": {"a": 1}}, {"k": 1}, {"k": 2})
    delivered[2] = Waiting(3, None, '{"k":{"a":' + '{"a":' * 900 + "1" + "}" * 902)

    assert [patch.id for patch in going_again(delivered, ["k"])] == [2, 3]
