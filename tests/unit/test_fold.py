"""Folding: one request for several patches, as right for the run as one request for each."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.fold import (
    MAX_BODY_METADATA,
    MAX_MEMBERS,
    NAME,
    Barrier,
    Fold,
    Waiting,
    body_of,
    fold,
    keys_of,
)

Object = dict[str, Any]
State = tuple[str | None, Object]  # a run's name and metadata

# The vendor documents that incoming metadata wins, but neither how deep it merges nor what null
# does. These are the four readings.


def overlay(there: Object, incoming: Object, *, deep: bool, null_deletes: bool) -> Object:
    merged = dict(there)
    for key, value in incoming.items():
        if null_deletes and value is None:
            merged.pop(key, None)
        elif deep and isinstance(value, dict):
            inner = merged.get(key)
            inner = inner if isinstance(inner, dict) else {}
            merged[key] = overlay(inner, value, deep=deep, null_deletes=null_deletes)
        else:
            merged[key] = value
    return merged


Model = Callable[[Object, Object], Object]
MODELS: dict[str, Model] = {
    "shallow": lambda s, p: overlay(s, p, deep=False, null_deletes=False),
    "shallow, null deletes": lambda s, p: overlay(s, p, deep=False, null_deletes=True),
    "deep": lambda s, p: overlay(s, p, deep=True, null_deletes=False),
    "deep, null deletes": lambda s, p: overlay(s, p, deep=True, null_deletes=True),
}
four_models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def applied(state: State, body: bytes, model: Model) -> State:
    """The run after the vendor has applied a request."""
    request = json.loads(body)
    assert request.keys() <= {"name", "metadata"}
    name, metadata = state
    return request.get("name", name), model(metadata, request.get("metadata", {}))


def one_by_one(state: State, patches: Sequence[Waiting], model: Model) -> State:
    """The run after the patches alone, in arrival order, without what they leave out."""
    name, metadata = state
    for patch in patches:
        if patch.name is not None and NAME not in patch.leaves_out:
            name = patch.name
        given_keys = json.loads(patch.metadata or "{}")
        kept = {key: v for key, v in given_keys.items() if key not in patch.leaves_out}
        metadata = model(metadata, kept)
    return name, metadata


# Few keys and few values, so that patches meet on the same keys often.
KEYS = st.sampled_from(["k", "m", "näme"])
SCALARS = st.sampled_from([1, 2, None, "x", True])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2) | st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)
TEXTS = st.builds(
    lambda fields, indent, ascii_only: json.dumps(fields, indent=indent, ensure_ascii=ascii_only),
    OBJECTS,
    st.sampled_from([None, 1]),
    st.booleans(),
)
LEFT_OUT = st.frozensets(st.sampled_from(["k", "m", NAME]), max_size=2)


@st.composite
def patch_sequences(draw: st.DrawFn, least: int = 1, most: int = 7) -> list[Waiting]:
    patches = []
    for patch_id in range(1, draw(st.integers(least, most)) + 1):
        name = draw(st.none() | st.sampled_from(["old", "new", 'q"uote']))
        metadata = draw(TEXTS if name is None else st.none() | TEXTS)
        leaves_out = draw(st.just(frozenset()) | LEFT_OUT)
        patches.append(Waiting(patch_id, name, metadata, leaves_out=leaves_out))
    return patches


STATES = st.tuples(st.none() | st.just("before"), OBJECTS)


def set_keys(patch: Waiting) -> Object:
    fields = json.loads(patch.metadata or "{}")
    return {key: value for key, value in fields.items() if key not in patch.leaves_out}


# The promise


@four_models
@given(state=STATES, patches=patch_sequences(), alone=st.lists(st.booleans(), max_size=7))
@settings(max_examples=80)
def test_folded_requests_leave_a_run_as_its_patches_one_by_one_would(
    model: Model, state: State, patches: list[Waiting], alone: list[bool]
) -> None:
    waiting, now, singly = list(patches), state, list(alone)
    while waiting:
        request = fold(waiting, Barrier.ALONE if singly and singly.pop() else None)
        now = applied(now, request.body, model)
        waiting = waiting[len(request.ids) :]

    assert now == one_by_one(state, patches, model)


@four_models
@given(
    state=STATES,
    patches=patch_sequences(),
    tries=st.lists(
        st.tuples(st.integers(1, 7), st.sampled_from(["answered", "lost", "applied unseen"])),
        max_size=10,
    ),
)
@settings(max_examples=80)
def test_sending_again_with_more_folded_in_is_right_whether_or_not_the_first_was_applied(
    model: Model, state: State, patches: list[Waiting], tries: list[tuple[int, str]]
) -> None:
    waiting, now, told = list(patches), state, list(tries)
    while waiting:
        seen, fate = told.pop() if told else (len(waiting), "answered")
        request = fold(waiting[:seen])
        if fate != "lost":
            now = applied(now, request.body, model)
        if fate == "answered":
            waiting = waiting[len(request.ids) :]

    assert now == one_by_one(state, patches, model)


@pytest.mark.parametrize(
    ("older", "newer", "model"),
    [
        # Deep: the scalar wipes what is there, the object is merged into nothing; as one object
        # it would be merged into what is still there.
        ('{"k":1}', '{"k":{"a":2}}', "deep"),
        ('{"k":{"b":1}}', '{"k":{"a":2}}', "deep"),
        ('{"k":null}', '{"k":{"a":2}}', "deep, null deletes"),
    ],
)
def test_the_barrier_is_there_because_an_object_over_a_set_key_comes_out_differently(
    older: str, newer: str, model: str
) -> None:
    """Why the rule exists: an overlay of the two bodies is not the same as the two in turn."""
    there: Object = {"k": {"z": 9}}
    apply = MODELS[model]
    in_turn = apply(apply(there, json.loads(older)), json.loads(newer))
    as_one = apply(there, {**json.loads(older), **json.loads(newer)})

    assert in_turn != as_one
    assert fold([Waiting(1, None, older), Waiting(2, None, newer)]).barrier is Barrier.VALUE


@given(patches=patch_sequences(least=2))
def test_no_object_or_array_is_folded_onto_a_key_that_is_already_there(
    patches: list[Waiting],
) -> None:
    request = fold(patches)
    members = patches[: len(request.ids)]
    earlier: set[str] = set()

    for member in members:
        fields = set_keys(member)
        assert not any(k in earlier and isinstance(v, dict | list) for k, v in fields.items())
        earlier |= fields.keys()
    if len(members) == len(patches):
        assert (request.barrier, request.key) == (None, None)
    else:
        assert request.barrier is Barrier.VALUE
        assert request.key in earlier
        assert isinstance(set_keys(patches[len(members)])[request.key], dict | list)


@given(patches=patch_sequences())
def test_a_fold_carries_the_oldest_patches_without_a_gap(patches: list[Waiting]) -> None:
    request = fold(patches)

    assert request.ids == tuple(patch.id for patch in patches)[: len(request.ids)]
    assert request.ids


# What goes out


def test_one_patch_goes_out_in_its_producers_own_words() -> None:
    metadata = '{ "a" : 1.0e5,\t"a":-0, "b":"\\u00e9\\/", "n":12345678901234567890123 }'

    assert body_of(Waiting(1, None, metadata)) == b'{"metadata":' + metadata.encode() + b"}"


def test_numbers_and_escapes_inside_a_fold_stay_as_they_were_written() -> None:
    older = Waiting(1, None, '{"a": 1.0e5, "big": 12345678901234567890123, "gone": 1}')
    newer = Waiting(2, None, '{"zero": -0, "text": "\\u00e9\\/", "in": [1.50, {"x": 1E+2}]}')
    newest = Waiting(3, None, '{"gone": 0.10}')

    request = fold([older, newer, newest])

    assert request.body == (
        b'{"metadata":{"a":1.0e5,"big":12345678901234567890123,"gone":0.10,"zero":-0,'
        b'"text":"\\u00e9\\/","in":[1.50, {"x": 1E+2}]}}'
    )


def test_the_last_name_set_wins_and_a_patch_without_one_does_not_unset_it() -> None:
    patches = [Waiting(1, "first", None), Waiting(2, "second", None), Waiting(3, None, '{"a":1}')]

    assert json.loads(fold(patches).body) == {"name": "second", "metadata": {"a": 1}}


def test_a_fold_of_names_alone_says_nothing_about_metadata() -> None:
    request = fold([Waiting(1, "a", None), Waiting(2, "b", None)])

    assert request == Fold((1, 2), b'{"name":"b"}')


def test_empty_metadata_is_sent_and_not_swallowed() -> None:
    assert body_of(Waiting(1, None, "{}")) == b'{"metadata":{}}'
    assert fold([Waiting(1, None, "{}"), Waiting(2, None, "{}")]).body == b'{"metadata":{}}'


def test_null_inside_metadata_is_sent() -> None:
    request = fold([Waiting(1, None, '{"a":1}'), Waiting(2, None, '{"a":null}')])

    assert request.body == b'{"metadata":{"a":null}}'


def test_names_of_every_script_and_with_quotes_are_valid_json() -> None:
    name = 'né "x" \\ \u2028 🙂 \x01'

    assert json.loads(body_of(Waiting(1, name, None))) == {"name": name}


# What newer patches have set


def test_what_a_patch_leaves_out_is_not_sent() -> None:
    patch = Waiting(1, "n", '{"a":1,"b":2.50}', leaves_out=frozenset({"a", NAME}))

    assert body_of(patch) == b'{"metadata":{"b":2.50}}'


def test_a_key_that_was_left_out_is_no_barrier() -> None:
    older = Waiting(1, None, '{"a":1,"b":1}', leaves_out=frozenset({"a"}))
    newer = Waiting(2, None, '{"a":{"x":1}}')

    assert fold([older, newer]).body == b'{"metadata":{"b":1,"a":{"x":1}}}'


def test_leaving_out_a_key_called_name_keeps_the_name() -> None:
    patch = Waiting(1, "kept", '{"name":1,"b":2}', leaves_out=frozenset({"name"}))

    assert json.loads(body_of(patch)) == {"name": "kept", "metadata": {"b": 2}}


@pytest.mark.parametrize(
    ("name", "metadata", "keys"),
    [
        ("n", None, {NAME}),
        (None, '{"a":1,"b":{"c":1}}', {"a", "b"}),
        ("n", '{"name":1}', {NAME, "name"}),
        (None, "{}", set()),
    ],
)
def test_the_keys_of_a_patch_are_its_top_level_ones_and_the_name(
    name: str | None, metadata: str | None, keys: set[str]
) -> None:
    assert keys_of(name, metadata) == keys


# Limits


def filled(patch_id: int, key: str, size: int) -> Waiting:
    """A patch whose metadata is an object of one string, that many bytes long."""
    frame = len('{"":""}') + len(key)
    return Waiting(patch_id, None, f'{{"{key}":"{"x" * (size - frame)}"}}')


def test_a_fold_may_reach_the_size_limit_but_not_pass_it() -> None:
    half = MAX_BODY_METADATA // 2
    # Joined, two objects lose a pair of braces and win a comma.
    fits = fold([filled(1, "a", half), filled(2, "b", half + 1)])
    too_large = fold([filled(1, "a", half), filled(2, "b", half + 2)])

    assert fits.ids == (1, 2)
    assert len(fits.body) - len('{"metadata":}') == MAX_BODY_METADATA
    assert (too_large.ids, too_large.barrier) == ((1,), Barrier.SIZE)


def test_a_value_that_replaces_another_does_not_count_twice() -> None:
    patches = [filled(n, "same", MAX_BODY_METADATA) for n in range(1, 5)]

    assert fold(patches).ids == (1, 2, 3, 4)


@given(
    sizes=st.lists(st.tuples(st.sampled_from(["a", "é", '"']), st.integers(0, 9000)), min_size=2)
)
@settings(max_examples=50)
def test_no_fold_is_larger_than_the_vendor_documents(sizes: list[tuple[str, int]]) -> None:
    waiting = [
        Waiting(n, None, json.dumps({f"{key}{n}": "é" * (size // 2)}, ensure_ascii=False))
        for n, (key, size) in enumerate(sizes, start=1)
    ]

    request = fold(waiting)

    metadata = bytes(msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])["metadata"])
    assert len(request.ids) == 1 or len(metadata) <= MAX_BODY_METADATA


def test_one_request_carries_a_bounded_number_of_patches() -> None:
    waiting = [Waiting(n, f"n{n}", None) for n in range(1, MAX_MEMBERS + 2)]

    request = fold(waiting)

    assert request.ids == tuple(range(1, MAX_MEMBERS + 1))
    assert request.barrier is Barrier.COUNT


@pytest.mark.parametrize("reason", [Barrier.ALONE, Barrier.OFF])
def test_alone_only_the_first_goes_and_the_reason_is_told(reason: Barrier) -> None:
    request = fold([Waiting(1, None, '{"a": 1}'), Waiting(2, "b", None)], reason)

    assert request == Fold((1,), b'{"metadata":{"a": 1}}', reason)


def test_a_single_waiting_patch_has_no_barrier_after_it() -> None:
    assert fold([Waiting(1, "a", None)], Barrier.OFF).barrier is None


# What SQL let in


DEEP = '{"a":' + "[" * 1_900 + "]" * 1_900 + "}"  # SQLite takes 2,000 levels
ODD = [
    pytest.param('{"\\ud800":1}', id="a lone surrogate"),
    pytest.param('{"a":1}\x00', id="a NUL behind it"),
    pytest.param(DEEP, id="nested deeper than the interpreter goes"),
]


@pytest.mark.parametrize("metadata", ODD)
def test_metadata_that_cannot_be_taken_apart_travels_alone(metadata: str) -> None:
    odd, plain = Waiting(1, None, metadata), Waiting(2, None, '{"b":2}')

    assert fold([odd, plain]) == Fold((1,), body_of(odd), Barrier.TEXT)
    assert fold([plain, odd, plain]).ids == (2,)
    assert fold([plain, odd, plain]).barrier is Barrier.TEXT


@pytest.mark.parametrize("metadata", ODD)
def test_metadata_that_cannot_be_taken_apart_is_a_value_error_where_its_keys_are_asked(
    metadata: str,
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (several kinds of it)
        keys_of(None, metadata)
    with pytest.raises(ValueError):  # noqa: PT011
        body_of(Waiting(1, None, metadata, leaves_out=frozenset({"a"})))
