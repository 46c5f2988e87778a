"""The four ways in which the vendor may read a patch: its documents leave them open."""

import copy
from typing import Any

Object = dict[str, Any]

MODELS = ("shallow", "shallow, null deletes", "deep", "deep, null deletes")


def applied(model: str, state: Object, patch: Object) -> Object:
    """The metadata after a patch."""
    deep, deletes = model.startswith("deep"), model.endswith("deletes")
    result = dict(state)
    for key, value in patch.items():
        if deletes and value is None:
            result.pop(key, None)
        elif deep and isinstance(value, dict):
            below = result.get(key)
            result[key] = applied(model, below if isinstance(below, dict) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result
