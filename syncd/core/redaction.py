"""A secret, found in a text whichever way it is written there, and left out."""

import re
from base64 import b64encode, urlsafe_b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

LEFT_OUT = b"<token>"
LEAST_ENCODED = 8  # characters: in base64 fewer would be found in what is none of it

# One character of a secret may be written in any of these ways, within one another as well: JSON's,
# Python's, an address's, a page's. Backslashes alone say nothing, and what is between characters in
# UTF-16 says nothing either.
_SPELLED = re.compile(
    rb"(?:&|\\++u0026)(?:amp;)*(?:#0*(?P<decimal>\d{2,3})|#[xX]0*(?P<in_page>[0-9a-fA-F]{2})"
    rb"|(?P<name>amp|lt|gt|quot|apos));"
    rb"|\\++(?:(?:u00|x)(?P<escaped>[0-9a-fA-F]{2})|(?P<foreign>u[0-9a-fA-F]{4}))?"
    rb"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})"
    rb"|\x00++"
)
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}
_BACKSLASH = ord("\\")
# What of that may be a character of a secret: a line end, a quote or a euro sign in JSON is none.
_MAY_BE = re.compile(
    rb"\\(?:[^nrt\"u]|u00[0-7])|%(?:25)*[2-7]|&(?:#|amp;|lt;|gt;|quot;|apos;)|\x00"
)


class Redaction:
    """Knows what one secret looks like; the rest of a text stays as it is.

    Somebody who repeats a request's headers does so in his own way: as text, in JSON as `\\/` or
    `\\u002f`, in a page as `&#47;`, in an address as `%2F`, in base64, in UTF-16. JSON with
    the secret inside of a string stays JSON.
    """

    def __init__(self, secret: str) -> None:
        data = secret.encode()
        encoded = _encoded(data) if len(data) >= LEAST_ENCODED else ()
        self._looks = tuple(dict.fromkeys((data, *encoded)))
        self._meant = tuple(_SPELLED.sub(_meant, look) or look for look in self._looks)
        self._literally = re.compile(b"|".join(map(re.escape, self._looks)))
        self._quotes = b'"' in data

    def of_bytes(self, data: bytes) -> bytes:
        """The same without the secret; the very same if it is not in there."""
        if not self.may_be_in(data):
            return data
        # What follows on what looks like the half of an escape has been taken for the other half.
        parts = [
            self._literally.sub(LEFT_OUT, part) for part in self._of_spelled(data).split(LEFT_OUT)
        ]
        left = LEFT_OUT.join(parts)
        return data if left == data else left

    def of(self, text: str) -> str:
        """The same without the secret."""
        data = text.encode(errors="surrogatepass")
        left = self.of_bytes(data)
        return text if left is data else left.decode(errors="surrogatepass")

    def may_be_in(self, data: bytes) -> bool:
        """Whether it has to be looked through. Most answers have not, and cost only this."""
        for look in self._looks:
            if look in data:
                return True
        if not (b"\\" in data or b"%" in data or b"&" in data or b"\x00" in data):
            return False
        return (self._quotes and b"\\" in data) or _MAY_BE.search(data) is not None

    def _of_spelled(self, data: bytes) -> bytes:
        meant = _SPELLED.sub(_meant, data)
        found = sorted(
            match.span()
            for look in self._meant
            if look in meant
            for match in re.finditer(re.escape(look), meant)
        )
        if not found:
            return data
        places = _places(data, sorted(place for span in found for place in span))
        kept: list[bytes] = []
        end = 0
        for first, last in found:
            kept += (data[end : places[first]], LEFT_OUT)
            end = max(end, places[last])
        return b"".join((*kept, data[end:]))


def _places(data: bytes, wanted: Iterable[int]) -> Mapping[int, int]:
    """Where in `data` begins what stands there in its meaning, for places in order.

    Backslashes in front belong to it: JSON without the character, but with them, would be none.
    """
    places: dict[int, int] = {}
    left, meaning, end = deque(wanted), 0, 0
    for match in _SPELLED.finditer(data):
        before = meaning + match.start() - end
        while left and left[0] <= before:
            places[left[0]] = end + left[0] - meaning
            left.popleft()
        if not left:
            break
        meaning, end = before + len(_meant(match)), match.end()
    return places | {place: end + place - meaning for place in left}


def _meant(match: re.Match[bytes]) -> bytes:
    match match.lastgroup:
        case None:
            return b""
        case "foreign":
            return b"\xff"
        case "name":
            return _NAMED[match["name"]]
        case "decimal":
            number = int(match["decimal"])
        case kind:
            number = int(match[kind], 16)
    return b"" if number in (0, _BACKSLASH) or number > 127 else bytes((number,))


def _encoded(data: bytes) -> Iterator[bytes]:
    for ahead in range(3):  # base64 of something longer: what in it is the secret's alone
        first, end = -(-ahead * 8 // 6), (ahead + len(data)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(bytes(ahead) + data)[first:end]
