"""Metadata is merged under each of the four models, and every value keeps its own text."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.sandbox import SandboxSettings
from syncd.sandbox.patches import Patch, apply_patch, read_patch
from syncd.sandbox.refusals import Refusal
from syncd.sandbox.runs import Run, join, overlay, split

keys = st.sampled_from(["a", "b", "c", 'é"\\'])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(keys, values, max_size=4)


def reference(older, newer, deep, null_deletes):
    """The four models on plain values."""
    merged = dict(older)
    for key, value in newer.items():
        if null_deletes and value is None:
            merged.pop(key, None)
        elif deep and isinstance(value, dict):
            there = merged.get(key)
            inner = there if isinstance(there, dict) else {}
            merged[key] = reference(inner, value, deep, null_deletes)
        else:
            merged[key] = value
    return merged


@given(objects, objects, st.booleans(), st.booleans())
def test_the_merge_of_texts_is_the_merge_of_values(older, newer, deep, null_deletes):
    merged = overlay(
        split(orjson.dumps(older)), split(orjson.dumps(newer)), deep=deep, null_deletes=null_deletes
    )

    assert orjson.loads(join(merged)) == reference(older, newer, deep, null_deletes)


@pytest.mark.parametrize("merge", ["shallow", "deep"])
def test_numbers_and_escapes_stay_as_they_were_written(merge):
    written = rb'{"n": 1.0e5, "o": {"i" : [12345678901234567890123, -0.0E+1]}, "s": "\u00e9 \/"}'
    settings = SandboxSettings(merge=merge)

    run = apply_patch(Run(), read_patch(b'{"metadata": %s}' % written, settings), settings)

    assert join(run.metadata) == (
        rb'{"n":1.0e5,"o":{"i":[12345678901234567890123,-0.0E+1]},"s":"\u00e9 \/"}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"name": 5}',
        b'{"metadata": []}',
        b'{"metadata": {"a": NaN}}',
        b'{"metadata": {"a": "\xff"}}',
        b'{"metadata": {"a": 1,}}',
        b'{"metadata": {"a": %s}}' % (b"[" * 100_000),
        b'{"metadata": {"a": %s%s}}' % (b"[" * 100_000, b"]" * 100_000),
    ],
)
def test_a_body_that_is_no_update_is_refused(body):
    refused = read_patch(body, SandboxSettings())

    assert isinstance(refused, Refusal)
    assert (refused.status, refused.code, refused.retryable) == (400, "INVALID_REQUEST", False)


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 980, 1_000, 5_000])
def test_deeply_nested_metadata_is_merged_or_refused(depth):
    body = b'{"metadata": %s1%s}' % (b'{"a":' * depth, b"}" * depth)
    settings = SandboxSettings(merge="deep", metadata_limit=0)

    patch = read_patch(body, settings)
    outcome = apply_patch(Run(), patch, settings) if isinstance(patch, Patch) else patch

    if isinstance(outcome, Run):
        assert join(outcome.metadata) == b"%s1%s" % (b'{"a":' * depth, b"}" * depth)
    else:
        assert outcome.code == "INVALID_REQUEST"


def test_the_limit_counts_the_merged_result_or_the_patch():
    full = Run(metadata={"a": json.dumps("x" * 80).encode()})
    patch = Patch(metadata={"b": b'"yyyyyyyyyy"'})

    by_result = SandboxSettings(metadata_limit=100)
    by_patch = SandboxSettings(metadata_limit=100, metadata_limit_on_patch=True)

    assert isinstance(apply_patch(full, patch, by_result), Refusal)
    assert isinstance(apply_patch(full, patch, by_patch), Run)
    assert isinstance(apply_patch(full, patch, SandboxSettings(metadata_limit=0)), Run)


def test_each_open_question_about_an_update_is_a_switch():
    strict = SandboxSettings(refuse_empty=True, name_limit=3, invalid_status=422)
    lax = SandboxSettings(refuse_null=False)

    assert read_patch(b"{}", SandboxSettings()) == Patch()
    assert read_patch(b"{}", strict).status == 422
    assert read_patch(b'{"name": "four"}', strict).status == 422
    assert read_patch(b'{"name": null}', SandboxSettings()).status == 400
    assert read_patch(b'{"metadata": null}', SandboxSettings()).status == 400
    assert read_patch(b'{"name": null, "metadata": null}', lax) == Patch()


def test_the_poison_key_is_refused_with_a_422():
    refused = read_patch(b'{"name": "n", "metadata": {"sandbox_refuse": 1}}', SandboxSettings())

    assert (refused.status, refused.code) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'["a b!","team-eng","x_1"]', b'["ab","team-eng","x_1"]'),
        (b'"not a list"', b'"not a list"'),
        (b"[1]", b"[1]"),
    ],
)
def test_usage_tags_lose_what_the_vendor_removes(sent, kept):
    patch = Patch(metadata={"extend:usage_tags": sent})

    run = apply_patch(Run(), patch, SandboxSettings(api="2026-02-09"))

    assert run.metadata == {"extend:usage_tags": kept}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"api": "v2"}, "api = 'v2': must be one of v1, 2024-12-23, 2025-04-21, 2026-02-09"),
        ({"merge": "odd"}, "merge = 'odd': must be one of shallow, deep"),
        ({"rate": -1}, "rate = -1: must be 0 or more"),
        ({"latency_s": float("nan")}, "latency_s = nan: must be 0 or more"),
        ({"invalid_status": 500}, "invalid_status = 500: must be 400 or 422"),
        ({"token": ""}, "token = '': must not be empty"),
        ({"faults": "500=2"}, "faults: '500=2': must be a probability from 0 to 1"),
    ],
)
def test_a_bad_setting_is_refused_by_name(setting, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 the message is compared whole
        SandboxSettings(**setting)

    assert str(refused.value) == message
