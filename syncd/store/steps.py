"""An operator's verb on however many patches, in steps between which others write and are sent."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager

from syncd.store.errors import StoreError, StoreUnavailable
from syncd.store.store import Store
from syncd.store.verbs import Selection, Touched, Verb

Still = Callable[[], AbstractAsyncContextManager[Collection[int]]]
Stopped = Callable[[], str | None]

STEP_PATCHES = 2000  # in one transaction: a tenth of a second, which producers wait
STEP_PAUSE_S = 0.03  # between two of them, for whoever has waited


async def operate_in_steps(
    store: Store,
    verb: Verb,
    selection: Selection,
    still: Still,
    *,
    force: bool = False,
    stopped: Stopped = lambda: None,
) -> Touched:
    """What the verb has come to.

    `still` yields the patches in flight, and keeps more from being sent during a step. A crash
    leaves some of it undone, and so does a reason that `stopped` gives before a step, or a step
    that fails: only if that is the first one, it raises. `retry` alone has one instant for all
    of them.
    """
    done, now = Touched(), store.now() if verb == "retry" else None
    ids = await store.chosen(verb, selection)
    for begin in range(0, len(ids), STEP_PATCHES):
        if begin:
            await asyncio.sleep(STEP_PAUSE_S)
        if (why := stopped()) is not None:
            done.stopped = why
            break
        part = Selection(ids=tuple(ids[begin : begin + STEP_PATCHES]))
        try:
            async with still() as in_flight:
                done.add(await store.operate(verb, part, in_flight=in_flight, force=force, now=now))
        except (StoreError, StoreUnavailable) as error:
            if not begin:
                raise
            done.stopped = str(error)
            break
    return done
