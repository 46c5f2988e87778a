"""Whether a request that got no answer was applied late, and has undone newer values.

After a timeout the vendor may apply a request, or may apply it minutes later: a zombie. Sending its
patches again is right in the first case; in the second, whatever newer patches have set in between
falls back. So the run is read back once no zombie can be alive any more. If values have fallen
back, all patches since the zombie's oldest go again, in order: that is right under every reading
of the vendor's merge, because the zombie's values are a part of theirs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from syncd.core.answer import Run
from syncd.core.fold import NAME, Waiting, kept

_NORMALISED = "extend:usage_tags"  # the vendor cleans its values: what comes back may differ


@dataclass(frozen=True, slots=True)
class Suspect:
    """A run, with the patches since the oldest that a zombie may carry. Oldest first."""

    run: str
    since_id: int
    upto_id: int
    delivered: Sequence[Waiting]
    withdrawn: Sequence[Waiting] = ()
    """Dead, held or discarded since, yet a zombie may carry them."""


def at_risk(suspect: Suspect) -> frozenset[str]:
    """The keys that a zombie could set back: a newer patch gives them another value.

    `NAME` stands for the name. Empty: a late request would change nothing.
    """
    newest = _newest(suspect)
    risky = {
        key
        for key, values in _given(suspect).items()
        if key in newest and any(value != newest[key] for value in values)
    }
    return frozenset(risky - {_NORMALISED})


def fell_back(suspect: Suspect, run: Run) -> bool:
    """Whether the run, read back, shows older values where newer ones were delivered.

    In doubt it does, since sending again what is there already changes nothing: a name that the
    answer does not carry, a key that holds objects, or metadata too deep to be looked into. A plain
    value that no patch of ours has given is somebody else's, and is left alone.
    """
    try:
        return _shows_older(suspect, run)
    except RecursionError:
        return True


def _shows_older(suspect: Suspect, run: Run) -> bool:
    given, newest = _given(suspect), _newest(suspect)
    found = _decoded(run.metadata)
    for key in at_risk(suspect):
        values = [_value(text) for text in given[key]]
        wanted = _value(newest[key])
        if key == NAME:
            if run.name is None or (run.name != wanted and run.name in values):
                return True
            continue
        if any(isinstance(value, dict) for value in values):
            return True  # what an object should be depends on how the vendor merges it
        now = found.get(key)
        if not _same(now, wanted) and any(_same(now, value) for value in values):
            return True
    return False


def _given(suspect: Suspect) -> dict[str, list[str]]:
    """By key: every value that was ever sent, as JSON text, in the order of arrival.

    A patch that leaves keys out today may have been sent with them before.
    """
    given: dict[str, list[str]] = {}
    for patch in sorted([*suspect.delivered, *suspect.withdrawn], key=lambda patch: patch.id):
        for key, text in _values(replace(patch, leaves_out=frozenset())).items():
            given.setdefault(key, []).append(text)
    return given


def _newest(suspect: Suspect) -> dict[str, str]:
    """By key: the value that the run should have, as JSON text."""
    newest: dict[str, str] = {}
    for patch in suspect.delivered:
        newest |= _values(patch)
    return newest


def _values(patch: Waiting) -> dict[str, str]:
    try:
        name, values = kept(patch)
    except ValueError:
        return {}
    texts = {key: bytes(raw).decode() for key, raw in values.items()}
    return texts if name is None else texts | {NAME: json.dumps(name)}


def _decoded(metadata: str | None) -> Mapping[str, Any]:
    value = _value(metadata or "{}")
    return value if isinstance(value, dict) else {}


def _value(text: str) -> Any:
    # Numbers stay text: 1.0 and 1 are equal to a vendor that keeps floats, huge ones are not lost.
    return json.loads(text, parse_int=_Number, parse_float=_Number)


class _Number(str):
    """A number by its text."""

    __slots__ = ()


def _same(found: Any, given: Any) -> bool:
    """Equal as JSON; a key that is missing equals null, which may have deleted it."""
    if isinstance(found, _Number) and isinstance(given, _Number):
        return str(found) == str(given) or float(found) == float(given)
    if isinstance(found, _Number) or isinstance(given, _Number):
        return False
    return type(found) is type(given) and bool(found == given)
