"""Whether a request that got no answer was applied late, and has undone newer values.

After a timeout the vendor may apply a request, or may apply it minutes later: a zombie. Sending its
patches again is right in the first case; in the second, whatever newer patches have set in between
falls back. So the run is read back once no zombie can be alive any more. If values have fallen
back, all patches since the zombie's oldest go again, in order: that is right under every reading
of the vendor's merge, because the zombie's values are a part of theirs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syncd.core.answer import Run
from syncd.core.fold import NAME, Waiting, kept

_NORMALISED = "extend:usage_tags"  # the vendor cleans its values: what comes back may differ


@dataclass(frozen=True, slots=True)
class Suspect:
    """A run, with the patches delivered to it since the oldest that a zombie may carry."""

    run: str
    since_id: int
    upto_id: int
    delivered: Sequence[Waiting]
    """Oldest first."""


def at_risk(suspect: Suspect) -> frozenset[str]:
    """The keys that a zombie could set back: a newer patch gives them another value.

    `NAME` stands for the name. Empty: a late request would change nothing.
    """
    risky: set[str] = set()
    for key, values in _history(suspect).items():
        newest = values[-1][1]
        if any(patch_id <= suspect.upto_id and value != newest for patch_id, value in values):
            risky.add(key)
    return frozenset(risky - {_NORMALISED})


def fell_back(suspect: Suspect, run: Run) -> bool:
    """Whether the run, read back, shows older values where newer ones were delivered.

    A name that the answer does not carry cannot be seen, and counts as fallen back. A value that no
    patch of ours has given is somebody else's, and is left alone.
    """
    history = _history(suspect)
    found = _decoded(run.metadata)
    for key in at_risk(suspect):
        older = [_value(text) for _, text in history[key][:-1]]
        newest = _value(history[key][-1][1])
        if key == NAME:
            if run.name is None or (run.name != newest and run.name in older):
                return True
            continue
        now = found.get(key)
        if _same(now, newest):
            continue
        if any(isinstance(value, dict | list) for value in (*older, newest)):
            if not _holds(now, newest):
                return True
        elif any(_same(now, value) for value in older):
            return True
    return False


def _history(suspect: Suspect) -> dict[str, list[tuple[int, str]]]:
    """By key: the values that were delivered, oldest first, as (patch, JSON text)."""
    history: dict[str, list[tuple[int, str]]] = {}
    for patch in suspect.delivered:
        try:
            name, values = kept(patch)
        except ValueError:
            continue
        if name is not None:
            history.setdefault(NAME, []).append((patch.id, json.dumps(name)))
        for key, raw in values.items():
            history.setdefault(key, []).append((patch.id, bytes(raw).decode()))
    return history


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


def _holds(found: Any, given: Any) -> bool:
    """Whether what was found holds at least all that was given: objects may have been merged."""
    if isinstance(given, dict) and isinstance(found, dict):
        return all(_holds(found.get(key), value) for key, value in given.items())
    return _same(found, given)
