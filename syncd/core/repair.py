"""What of a run goes again where a late request has, or may have, undone it: no more than it takes.

A value that is no object or array replaces whatever is there, however the vendor merges: of what a
key was given, nothing before that has to go again. Objects go in their order, because they may be
merged either way; but not those of which all that they set is set again by newer ones.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from syncd.core.fold import Waiting, kept
from syncd.core.values import value_in, values_of

_Set = bool | dict[str, Any]
"""What newer values set of a key: nothing of it, all of it, or this of the object there."""


def again(newest_first: Iterable[Waiting], keys: Collection[str]) -> dict[int, frozenset[str]]:
    """The patches that go again, for the keys to be as all these patches in order make them; with
    what each leaves out. Newest first.

    What is left out is set by newer patches in any case, so that it never has to go again.
    """
    leaves_out = dict[int, frozenset[str]]()
    needed: defaultdict[str, list[int]] = defaultdict(list)
    since = dict[str, _Set]()
    whole = False
    for patch in newest_first:
        leaves_out[patch.id] = patch.leaves_out
        if not _in_parts(patch):
            whole = True  # whatever it sets, the newer ones have to go after it
        for key, text in values_of(patch).items() if not whole else ():
            newer = since.get(key, False)
            try:
                value = value_in(text)
                is_set = _is_set(value, newer)
                since[key] = newer if is_set else _with(newer, value)
            except RecursionError:  # too deep to be looked into: as an array is
                is_set = newer is True
            if is_set:
                leaves_out[patch.id] |= {key}
            else:
                needed[key].append(patch.id)
    going = leaves_out.keys() if whole else _going(needed, keys)
    return {patch_id: left_out for patch_id, left_out in leaves_out.items() if patch_id in going}


def _going(needed: Mapping[str, list[int]], keys: Collection[str]) -> Collection[int]:
    """The patches that these keys need; and those that a key needs because of one of them."""
    by_patch: defaultdict[int, list[str]] = defaultdict(list)
    for key, ids in needed.items():
        for patch_id in ids[1:]:  # the newest is there already, and undoes nothing
            by_patch[patch_id].append(key)
    going, seen, left = set[int](), set(keys), list(keys)
    while left:
        for patch_id in needed.get(left.pop(), ()):
            going.add(patch_id)
            left += (more := set(by_patch[patch_id]) - seen)
            seen |= more
    return going


def _in_parts(patch: Waiting) -> bool:
    """Whether it can be told what it sets, and sent without some of it."""
    try:
        kept(patch)
    except ValueError:
        return False
    return True


def _is_set(value: Any, newer: _Set) -> bool:
    """Whether newer values set all that this one does."""
    if isinstance(newer, bool) or not (isinstance(value, dict) and value):
        return newer is True
    return all(_is_set(inner, newer.get(key, False)) for key, inner in value.items())


def _with(newer: _Set, value: Any) -> _Set:
    """What they set together with this value."""
    if newer is True or isinstance(value, list):
        return newer  # whether an array replaces what is there is not documented
    if not isinstance(value, dict):
        return True
    below = newer if isinstance(newer, dict) else {}
    return below | {key: _with(below.get(key, False), inner) for key, inner in value.items()}
