"""Nearly JSON, from somebody who cut a character in two: as text that every reader takes."""

import re

_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
# All up to the next half in one step: one for each escape would take seconds for some texts.
_UP_TO_HALF = re.compile(rb"(?:[^\\]++|\\[^u]|%b|(?!%b)\\u)*+(%b)?" % (_PAIR, _HALF, _HALF))
_REPLACED = b"\\ufffd"
MOST_BYTES = 1 << 20


def mended(text: bytes) -> bytes:
    """The same with U+FFFD for each half of a surrogate pair, and for bytes that are not UTF-8.

    JSON's grammar allows an escaped half, but no text in UTF-8 can hold it: msgspec, orjson and
    SQLite refuse it, each in other places. Text without either is returned as it is; so is one that
    is too long to be looked through while others wait.
    """
    if len(text) > MOST_BYTES:
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode(errors="replace").encode()
    whole: bytearray | None = None
    for match in _UP_TO_HALF.finditer(text):
        if match[1] is not None:
            whole = whole or bytearray(text)
            whole[match.start(1) : match.end(1)] = _REPLACED  # as long as what it replaces
    return text if whole is None else bytes(whole)
