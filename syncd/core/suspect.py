"""Whether a request that got no answer was applied late, and has undone newer values.

After a timeout the vendor may apply a request, or may apply it minutes later: a zombie. Sending its
patches again is right in the first case; in the second, whatever newer patches have set in between
falls back. So the run is read back once no zombie can be alive any more. What that does not confirm
goes again (see `repair`), out of the patches since the zombie's oldest: that is right under every
reading of the vendor's merge, because the zombie's values are a part of theirs. If it does, nothing
must go: it would set older values on its way.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from msgspec import structs

from syncd.core.answer import Run
from syncd.core.fold import NAME, Waiting
from syncd.core.values import alike, same, told_apart, value_in, values_of

_TAGS = "extend:usage_tags"  # the vendor leaves out of each what is no letter, digit, - or _
_LEFT_OUT = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A run, with the patches since the oldest that a zombie may carry. Oldest first."""

    run: str
    since_id: int
    upto_id: int
    delivered: Sequence[Waiting]
    withdrawn: Sequence[Waiting] = ()
    """Dead, held or discarded since, yet a zombie may carry them."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """By key: what the answer to its newest delivery has shown, as JSON text."""


def at_risk(suspect: Suspect) -> frozenset[str]:
    """The keys that a zombie could set back: a newer patch gives them another value.

    `NAME` stands for the name. Empty: a late request would change nothing.
    """
    newest = _newest(suspect)
    return frozenset(
        key
        for key, values in _given(suspect).items()
        if key in newest and any(value != newest[key] for value in values)
    )


def shown(run: Run, patches: Sequence[Waiting]) -> dict[str, str]:
    """By key that these patches set: what an answer shows of it, as JSON text."""
    found = values_of(Waiting(0, None, run.metadata))
    keys = {key for patch in patches for key in values_of(patch)}
    return {key: found.get(key, "null") for key in keys if key != NAME}


def unconfirmed(suspect: Suspect, run: Run) -> frozenset[str]:
    """The keys of which the run, read back, shows older values than newer patches have set, or
    leaves that open.

    Open are a name or usage tags that the answer does not carry, objects that may be merged either
    way, numbers that a vendor that keeps doubles shows alike, and metadata too deep to be looked
    into: sending again what is there already changes nothing. A plain value that no patch of ours
    has given is somebody else's, and is left alone.
    """
    risky = at_risk(suspect)
    try:
        return frozenset(key for key in risky if _may_be_older(suspect, run, key))
    except RecursionError:
        return risky


def _may_be_older(suspect: Suspect, run: Run, key: str) -> bool:
    texts = _given(suspect)[key]
    values, wanted = [value_in(text) for text in texts], value_in(_newest(suspect)[key])
    if key == NAME:
        return run.name is None or (run.name != wanted and run.name in values)
    found = _decoded(run.metadata)
    now = found.get(key)
    if any(isinstance(value, dict) for value in values):
        return not _as_confirmed(suspect, key, now)
    if key == _TAGS and key not in found:
        return True
    equal = _tagged_alike if key == _TAGS else alike
    return not same(now, wanted) and any(
        equal(now, value) for value in values if not same(value, wanted)
    )


def _tagged_alike(found: Any, given: Any) -> bool:
    """Whether the vendor may have made these tags of the given ones. In which order, and whether
    letters of other alphabets count, is not documented."""
    return alike(_cleaned(found), _cleaned(given))


def _cleaned(tags: Any) -> Any:
    if not isinstance(tags, list):
        return tags
    return sorted({_LEFT_OUT.sub("", str(tag)) for tag in tags} - {""})


def _as_confirmed(suspect: Suspect, key: str, now: Any) -> bool:
    """Whether a key that has held objects is as the answer to its newest delivery has shown it,
    and that was right.

    What is right depends on how deep the vendor merges. It is, under every reading, if all that was
    given since is in it, or if it is just what was given last: for objects only grow where they are
    merged. A null among them, which may delete, or another value leaves doubt.
    """
    if key not in suspect.seen or not same(now, value_in(suspect.seen[key])):
        return False
    values = [value_in(text) for text in _given(suspect)[key]]
    if not all(map(_only_grows, values)):
        return False
    equal = alike if told_apart(values) else same
    delivered = [
        value_in(texts[key]) for texts in map(values_of, suspect.delivered) if key in texts
    ]
    return _carries(now, reduce(_merged, delivered), equal) or equal(now, delivered[-1])


def _merged(older: Any, newer: Any) -> Any:
    if not (isinstance(older, dict) and isinstance(newer, dict)):
        return newer
    return older | {key: _merged(older.get(key), value) for key, value in newer.items()}


def _carries(found: Any, wanted: Any, equal: Callable[[Any, Any], bool]) -> bool:
    if not isinstance(wanted, dict):
        return equal(found, wanted)
    return isinstance(found, dict) and all(
        _carries(found.get(key), value, equal) for key, value in wanted.items()
    )


def _only_grows(value: Any) -> bool:
    return isinstance(value, dict) and not any(map(_has_null, value.values()))


def _has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else ()
    return value is None or any(map(_has_null, inner))


def _given(suspect: Suspect) -> dict[str, list[str]]:
    """By key: every value that was ever sent, as JSON text, in the order of arrival.

    A patch that leaves keys out today may have been sent with them before.
    """
    given: dict[str, list[str]] = {}
    for patch in sorted([*suspect.delivered, *suspect.withdrawn], key=lambda patch: patch.id):
        for key, text in values_of(structs.replace(patch, leaves_out=frozenset())).items():
            given.setdefault(key, []).append(text)
    return given


def _newest(suspect: Suspect) -> dict[str, str]:
    """By key: the value that the run should have, as JSON text."""
    newest: dict[str, str] = {}
    for patch in suspect.delivered:
        newest |= values_of(patch)
    return newest


def _decoded(metadata: str | None) -> Mapping[str, Any]:
    value = value_in(metadata or "{}")
    return value if isinstance(value, dict) else {}
