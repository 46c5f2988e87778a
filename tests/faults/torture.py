"""Texts made to break parsers."""

from hypothesis import strategies as st

# Ideas of the public JSON torture suites: what is no JSON, what is but need not be taken, and what
# must be. Each stands where a value stands.
VALUES: tuple[bytes, ...] = (
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"+1", b"01", b"-01", b".5", b"5.", b"1.e5"),
    *(b"0x10", b"1_000", b"1e", b"1e+", b"--1", b"-", b"\xef\xbc\x91", b"1 000", b"0e1", b"-0"),
    *(
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"1E400",
        b"9" * 5000,
        b"-" + b"9" * 5000,
        b"0." + b"1" * 5000,
    ),
    *(b"123456789012345678901234567890", b"0.1000000000000000055511151231257827", b"1.0", b"1E2"),
    *(b"18446744073709551616", b"-9223372036854775809", b"9007199254740993", b"1e0000001"),
    *(
        b"[" * 600 + b"]" * 600,
        b"[" * 100_000,
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"a":' * 50_000,
    ),
    *(
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\xc0\x80"',
    ),
    *(
        b'"\x00"',
        b'"\\u0000"',
        b'"\t"',
        b'"\n"',
        b'"\x7f"',
        b'"\\x41"',
        b'"\\a"',
        b'"\\u12"',
        b'"\\',
    ),
    *(
        b"'a'",
        b'"a',
        b"a",
        b"True",
        b"tru",
        b"nul",
        b"null\x00",
        b"undefined",
        b"//c\n1",
        b"/*c*/1",
    ),
    *(
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1,,2]",
        b"{1:2}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{,}",
        b"]",
    ),
    *(
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":{}}}',
        b'{"":1}',
        b'{"\\u0061":1,"a":2}',
        b'{"__proto__":1}',
    ),
    *(
        b"\xef\xbb\xbf1",
        b"\x0b1",
        b"\xa01",
        b"\xe2\x80\xa81",
        b"\x0c1",
        b"1\x00",
        b"",
        b"#",
        b"<a/>",
    ),
    *(b'"\xe2\x80\xa8"', b'"\xf4\x90\x80\x80"', b'"\xf0\x9f\x98\x80"', b'"\\ufffe"', b'"\\uFDD0"'),
)
SHAPES: tuple[bytes, ...] = (
    b'{"workflow_run_id":"r","metadata":{"k":%s}}',
    b'{"workflow_run_id":"r","metadata":%s}',
    b'{"workflow_run_id":"r","name":%s}',
    b'{"workflow_run_id":%s,"name":"n"}',
    b'{"workflow_run_id":"r","name":"n","priority":%s}',
    b'{"workflow_run_id":"r","name":"n","idempotency_key":%s}',
    b"%s",
)


def filled(shapes: tuple[bytes, ...]) -> list[bytes]:
    made = [shape.replace(b"%s", value) for shape in shapes for value in VALUES]
    some = made[:: len(made) // 60]
    return [
        *made,
        *(b"\xef\xbb\xbf" + text for text in some),
        *(text + b"x" for text in some),
        *(text.decode("utf-8", "replace").encode(kind) for text in some for kind in UTFS),
    ]


UTFS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7")


nested = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
damage = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=3)


def damaged(text: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """The text with bytes replaced here and there."""
    for at, new in changes:
        where = at % (len(text) + 1)
        text = text[:where] + new + text[where + 1 :]
    return text
