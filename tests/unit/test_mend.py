"""Half a character becomes U+FFFD, and nothing else changes: held against Python's own reader."""

import json
import re
import sqlite3
import time
from contextlib import closing
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.core.mend import MOST_BYTES, mended

# Backslashes, the letter and digits that follow them in an escape, halves, pairs and plain text.
texts = st.lists(
    st.sampled_from(["\\", "u", "d83d", "ude00", '"', "\ud83d", "\udc00", "\U0001f600", "é", "\n"])
    | st.characters(),
    max_size=12,
).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def without_halves(value: Any) -> Any:
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case list():
            return [without_halves(each) for each in value]
        case dict():
            return {without_halves(key): without_halves(each) for key, each in value.items()}
        case _:
            return value


@given(values)
@example("\\\ud83d")
@example("\\\\ud83d\ud83d\ude00")
def test_halves_become_replacement_characters_and_the_rest_stays(value: Any) -> None:
    text = json.dumps(value).encode()

    whole = mended(text)

    assert json.loads(whole) == without_halves(json.loads(text))
    assert len(whole) == len(text)
    assert orjson.dumps(orjson.loads(whole))
    with closing(sqlite3.connect(":memory:")) as db:
        assert db.execute("SELECT json_valid(?)", (whole.decode(),)).fetchone() == (1,)
    assert mended(whole) is whole


@given(values, st.data())
def test_bytes_that_are_not_utf8_become_replacement_characters(value: Any, data: Any) -> None:
    text = json.dumps([without_halves(value), "here"], ensure_ascii=False).encode()
    odd = data.draw(st.binary(max_size=6).filter(lambda raw: not set(raw) & set(b'\\"\n\t\r')))
    odd = bytes(byte for byte in odd if byte >= 0x20)

    whole = mended(text.replace(b'here"', odd + b'"'))

    assert json.loads(whole) == [without_halves(value), odd.decode(errors="replace")]


@given(st.binary(max_size=40) | st.text('\\ud83c"', max_size=30).map(str.encode))
def test_whatever_is_mended_is_utf8_and_needs_no_more(text: bytes) -> None:
    whole = mended(text)

    whole.decode()
    assert mended(whole) is whole


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        '"é 😀 \\u00e9 \\ud83d\\ude00 \\uD83D\\uDE00 \\n \\\\"'.encode(),
        b'"\\\\ud83d \\\\\\\\ud83d"',
        b'"\\ud83"',
        b'"\\',
    ],
)
def test_what_has_no_halves_stays_the_very_same(text: bytes) -> None:
    assert mended(text) is text


@pytest.mark.parametrize(
    "piece", [b"\\n", b"\\\\", b"x", b"\\ud83d\\ude00", b"\\u00e9", b"\\u", b"\\ud83d"]
)
def test_a_long_text_is_mended_in_a_moment(piece: bytes) -> None:
    text = b'"' + piece * ((MOST_BYTES - 8) // len(piece)) + b'\\ud83d"'
    began = time.process_time()

    whole = mended(text)

    assert whole.endswith(b'\\ufffd"')
    assert time.process_time() - began < 1.0


def test_a_text_of_which_looking_through_would_take_longer_is_left_as_it_is() -> None:
    text = b'"' + b"x" * MOST_BYTES + b'\\ud83d"'

    assert mended(text) is text
