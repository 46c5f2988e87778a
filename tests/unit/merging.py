"""Patches of one run, and what a vendor makes of them."""

import json
from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from syncd.core.fold import Waiting, body_of
from syncd.core.repair import again
from syncd.selftest.merge import applied

scalars = st.sampled_from([None, 1, 2, "x", True, 1.5, [1]])
values = scalars | st.dictionaries(st.sampled_from("ab"), scalars, max_size=2)
objects = st.dictionaries(st.sampled_from("km"), values, max_size=2)


def patches(*metadata: dict[str, Any]) -> list[Waiting]:
    return [Waiting(number, None, json.dumps(one)) for number, one in enumerate(metadata, 1)]


def in_order(model: str, state: dict[str, Any], waiting: list[Waiting]) -> dict[str, Any]:
    """The metadata after these, as they are sent."""
    for patch in waiting:
        state = applied(model, state, json.loads(body_of(patch)).get("metadata", {}))
    return state


def going_again(delivered: list[Waiting], keys: Collection[str]) -> list[Waiting]:
    """What is sent so that these keys are as all of it has made them, oldest first."""
    going = again(reversed(delivered), keys)
    return [
        Waiting(patch.id, patch.name, patch.metadata, leaves_out=going[patch.id])
        for patch in delivered
        if patch.id in going
    ]
