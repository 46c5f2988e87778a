"""The values that a patch gives to its keys, and whether what is found there is the same."""

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from syncd.core.fold import NAME, Waiting, kept


class Number(str):
    """A number by its text: none is too large or too long to be kept."""

    __slots__ = ()


def values_of(patch: Waiting) -> dict[str, str]:
    """By key that the patch is sent with: the value's JSON text. None where it cannot be had."""
    try:
        name, values = kept(patch)
    except ValueError:
        return {}
    texts = {key: bytes(raw).decode() for key, raw in values.items()}
    return texts if name is None else texts | {NAME: json.dumps(name)}


def value_in(text: str) -> Any:
    """The value of a JSON text."""
    return json.loads(text, parse_int=Number, parse_float=Number)


def same(found: Any, given: Any) -> bool:
    """Equal as JSON, however it is written; a key that is missing equals null, which may have
    deleted it."""
    return _equal(found, given, in_doubles=False)


def alike(found: Any, given: Any) -> bool:
    """The same, or what a vendor that keeps numbers as doubles makes of the same."""
    return _equal(found, given, in_doubles=True)


def told_apart(values: list[Any]) -> bool:
    """Whether no two numbers in these values are alike without being the same."""
    seen: dict[float, Number] = {}
    return all(
        _equal_numbers(seen.setdefault(float(number), number), number, in_doubles=False)
        for value in values
        for number in _numbers(value)
    )


def _numbers(value: Any) -> Iterator[Number]:
    if isinstance(value, Number):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)


def _equal(found: Any, given: Any, *, in_doubles: bool) -> bool:
    if isinstance(found, dict) and isinstance(given, dict):
        return all(
            _equal(found.get(key), given.get(key), in_doubles=in_doubles)
            for key in found.keys() | given.keys()
        )
    if isinstance(found, list) and isinstance(given, list):
        return len(found) == len(given) and all(
            _equal(one, other, in_doubles=in_doubles)
            for one, other in zip(found, given, strict=True)
        )
    if isinstance(found, Number) and isinstance(given, Number):
        return _equal_numbers(found, given, in_doubles=in_doubles)
    return type(found) is type(given) and bool(found == given)


def _equal_numbers(found: Number, given: Number, *, in_doubles: bool) -> bool:
    if str(found) == str(given) or (in_doubles and float(found) == float(given)):
        return True
    try:
        # Exact, and no exponent is written out for it.
        return Decimal(found) == Decimal(given)
    except InvalidOperation:  # an exponent of twenty digits
        return False
