"""An operator's verb at work: what it does to rows, and what it hastens."""

from dataclasses import dataclass

from syncd.relay import Relay
from syncd.store import Selection, Store, Touched, Verb, read


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a verb."""

    touched: Touched
    asked: bool = False
    """The API, which is failing or refuses the credentials, is asked at once because of it …"""
    asked_with: str | None = None
    """… with this run first, if it was for some patches only."""


async def operate(
    store: Store, relay: Relay, verb: Verb, selection: Selection, *, force: bool = False
) -> Done:
    """What control does for an operator, and the simulation too.

    Who says `retry` means now, not at the next probe; also where the rows were ready to go, and
    waited for nothing but that.
    """
    touched = await store.operate_in_steps(verb, selection, relay.standing_still, force=force)
    if verb != "retry":
        return Done(touched)
    if selection.everything:  # what has not failed yet too, which is not looked at one by one
        wanted, run = await store.read(read.anything_waits), None
    else:
        wanted, run = touched.first is not None, touched.first and touched.first[1]
    if not (wanted and relay.ask_at_once(run)):
        return Done(touched)
    return Done(touched, asked=True, asked_with=run)
