"""Patches given to an operator: parked, chosen and operated on, and what is sent of them next."""

from typing import Any

from stores import (
    dead,
)

from syncd.core.fold import body_of
from syncd.store import Selection, Store, Verb

EVERYTHING = Selection(everything=True)


def ids(*them: int) -> Selection:
    return Selection(ids=them)


async def operate(store: Store, verb: Verb, selection: Selection, **how: Any) -> tuple[int, int]:
    """How many patches were touched, and how many left alone because they are in flight."""
    touched = await store.operate(verb, selection, **{"in_flight": (), **how})
    return touched.touched, touched.in_flight


async def sent_next(store: Store, run_id: str = "r") -> bytes | None:
    """The body of the run's next patch, as it would go out alone."""
    lane = await store.lane(run_id)
    return body_of(lane.waiting[0]) if lane else None


async def park(store: Store, *patch_ids: int, run_id: str = "r") -> None:
    await store.settle([dead(run_id, *patch_ids)])
