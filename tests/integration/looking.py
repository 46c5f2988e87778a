"""What `why` and `plan` are asked about: a daemon that runs, and what it has out."""

from collections.abc import Mapping
from typing import Any

from stores import (
    NOON,
)

from syncd.core.sending import Live, Out, Sending
from syncd.store import Store, plan

RUNNING = Live(Sending("running", requests_per_s=8.0), folding=True)


def live(
    *, out: Mapping[str, tuple[int, ...]] | None = None, folding: bool = True, **alone_until: int
) -> Live:
    """A daemon that runs, with these patches out."""
    sent = {run: Out(ids, 0.5) for run, ids in (out or {}).items()}
    return Live(RUNNING.sending, folding, sent, alone_until)


async def planned(store: Store, facts: Live = RUNNING, limit: int = 20) -> list[dict[str, Any]]:
    return await store.read(lambda db: plan.plan(db, NOON, facts, limit))
