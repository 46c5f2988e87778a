"""A secret is left out of a text whichever way it is written there."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.redaction import LEAST_ENCODED, Redaction

SECRET = "sk_live/AbC&<d>'Ef\"0123\\456+x?z="
REDACTION = Redaction(SECRET)
Encode = Callable[[bytes], bytes]
PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)

WRITTEN = {
    "plain": SECRET,
    "JSON": json.dumps(SECRET)[1:-1],
    "JSON, as PHP writes it": json.dumps(SECRET)[1:-1].replace("/", "\\/"),
    "JSON, as Go writes it": json.dumps(SECRET)[1:-1]
    .replace("&", "\\u0026")
    .replace("<", "\\u003c"),
    "JSON, all of it escaped": "".join(f"\\u{ord(one):04x}" for one in SECRET),
    "JSON, in capitals": "".join(f"\\u{ord(one):04X}" for one in SECRET),
    "JSON within JSON": json.dumps(json.dumps(SECRET).replace("/", "\\/"))[3:-3],
    "JSON within JSON, escaped": "".join(f"\\\\u{ord(one):04x}" for one in SECRET),
    "Python": repr(SECRET.encode())[2:-1],
    "Python, as hex": "".join(f"\\x{ord(one):02x}" for one in SECRET),
    "address": quote(SECRET, safe=""),
    "address, in small letters": re.sub("%..", lambda one: one[0].lower(), quote(SECRET, safe="")),
    "address, twice": quote(quote(SECRET, safe=""), safe=""),
    "address, all of it": "".join(f"%{ord(one):02X}" for one in SECRET),
    "page": html.escape(SECRET),
    "page, twice": html.escape(html.escape(SECRET)),
    "page, by numbers": "".join(f"&#{ord(one)};" for one in SECRET),
    "page, by hex": "".join(f"&#x{ord(one):X};" for one in SECRET),
    "page in Go's JSON": html.escape(SECRET).replace("\\", "\\\\").replace("&", "\\u0026"),
    "UTF-16": SECRET.encode("utf-16-le").decode(),
    "UTF-32": SECRET.encode("utf-32-be").decode(),
    "UTF-16, in JSON": json.dumps(SECRET.encode("utf-16-be").decode())[1:-1],
    "UTF-16, in Python": repr(SECRET.encode("utf-16-le").decode())[1:-1],
}


@pytest.mark.parametrize("way", WRITTEN)
def test_it_is_left_out_however_it_is_written(way: str) -> None:
    text = f'{{"message": "no: {WRITTEN[way]}, {WRITTEN[way]}. ü"}}'

    left = REDACTION.of(text)

    assert re.sub(r"\0|\\[xu0]+", "", left) == '{"message": "no: <token>, <token>. ü"}'
    assert REDACTION.of_bytes(text.encode()) == left.encode()


@pytest.mark.parametrize("before", ["", "x", "u:", "Bearer "])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_in_base64_of_something_longer_it_cannot_be_read(before: str, encode: Encode) -> None:
    text = encode(f"{before}{SECRET} and more".encode()).decode().replace("/", "\\/")

    left = REDACTION.of(f'{{"authorization":"{text}"}}')

    assert "<token>" in left
    assert len(left) < 45 + len(before)


# One with an escape of its own is found where it stands as it is; see below.
UNESCAPED = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="%&\\")


@given(secret=st.text(UNESCAPED, min_size=10, max_size=40), data=st.data())
def test_any_secret_is_found_and_json_stays_json(secret: str, data: st.DataObject) -> None:
    """Each character in a way of its own, in a string that begins and ends with what it likes."""
    ways = ("{}", "\\u{:04x}", "\\u{:04X}")
    written = "".join(
        json.dumps(one)[1:-1] if way == "{}" else way.format(ord(one))
        for one in secret
        for way in [data.draw(st.sampled_from(ways))]
    )
    around = st.sampled_from(["", "\\\\", '\\"', "\\n", "é", "x ", "\\ud83d\\ude00"])
    before, after = data.draw(around), data.draw(around)

    left = Redaction(secret).of_bytes(f'["{before}{written}{after}", 1]'.encode())

    text, _ = json.loads(left)
    assert "<token>" in text
    assert secret not in text


TEXTS = st.text() | st.text(st.sampled_from('\\u0026xX2Ff%&#;amp"sk/é\0'))


@given(TEXTS)
def test_what_does_not_have_it_stays_the_very_same(text: str) -> None:
    data = text.encode()

    assert REDACTION.of(text) is text
    assert REDACTION.of_bytes(data) is data


@given(TEXTS, st.text(PRINTABLE, min_size=1, max_size=8))
def test_what_is_left_never_has_it(text: str, secret: str) -> None:
    left = Redaction(secret).of(text + secret + text)

    assert secret not in left.replace("<token>", "\n")


def test_what_stands_in_its_place_is_not_taken_for_it() -> None:
    assert Redaction("token").of(r"a token, a \u0074oken") == "a <token>, a <token>"


def test_a_short_one_is_not_looked_for_in_base64_where_it_would_be_everywhere() -> None:
    text = b64encode(b"all of the alphabet").decode()

    assert Redaction("all").of(text) is text
    assert len("all") < LEAST_ENCODED


def test_a_hostile_text_takes_no_longer_than_its_length_asks_for() -> None:
    """Each of these would take minutes if every place in it were tried up to its end."""
    for piece in ("\\", "%25", "25", "&amp;", "amp;", "&#0", "0", "\0", "s\0\0\0", "\\u0026"):
        for start in ("", "%", "&", "&#", "\\"):
            assert "<token>" not in REDACTION.of(start + piece * (200_000 // len(piece)))
