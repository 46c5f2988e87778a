"""What the vendor should hold in the end, told independently of syncd: patches one by one."""

import json
from collections.abc import Iterable
from typing import Any

Wanted = dict[str, dict[str, Any]]


def one_by_one(patches: Iterable[tuple[str, str | None, str | None]]) -> Wanted:
    """The runs after applying (run, name, metadata text) in order, incoming keys winning."""
    runs: Wanted = {}
    for run, name, metadata in patches:
        state = runs.setdefault(run, {"name": None, "metadata": {}})
        if name is not None:
            state["name"] = name
        if metadata is not None:
            state["metadata"].update(json.loads(metadata))
    return runs


def differing(wanted: Wanted, held: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """The runs that are not as they should be: {run: (wanted, held)}."""
    return {
        run: (state, held.get(run))
        for run, state in wanted.items()
        if run not in held
        or held[run]["metadata"] != state["metadata"]
        or (state["name"] is not None and held[run]["name"] != state["name"])
    }
