"""An operator's verb at work: what it does to rows, what it hastens, and what ends it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from syncd.relay import Relay
from syncd.store import Selection, Store, Touched, Verb, operate_in_steps, read

THE_DAEMON_STOPS = "the daemon stops"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a verb."""

    touched: Touched
    wanted: bool = False
    """Something waits by now that the verb wants to go: `retry` alone does."""
    asked: bool = False
    """The API, which is failing or refuses the credentials, is asked at once because of it …"""
    asked_with: str | None = None
    """… with this run first, if it was for some patches only."""


async def operate(
    store: Store,
    relay: Relay,
    verb: Verb,
    selection: Selection,
    *,
    force: bool = False,
    stopped: Callable[[], str | None] = lambda: None,
) -> Done:
    """What control does for an operator, and the simulation too.

    Who says `retry` means now, not at the next probe; also where the rows were ready to go, and
    waited for nothing but that. Who has stopped it means nothing more.
    """
    touched = await operate_in_steps(
        store, verb, selection, relay.standing_still, force=force, stopped=stopped
    )
    if verb != "retry" or touched.stopped:
        return Done(touched)
    if selection.everything:  # what has not failed yet too, which is not looked at one by one
        wanted, run = await store.read(read.anything_waits), None
    else:
        wanted, run = touched.first is not None, touched.first and touched.first[1]
    if not (wanted and relay.ask_at_once(run)):
        return Done(touched, wanted)
    if run is not None and touched.first and touched.first[2]:  # it is tried now, if no other is
        touched.touched, touched.waiting = touched.touched + 1, touched.waiting - 1
    return Done(touched, wanted, asked=True, asked_with=run)


@dataclass(slots=True, eq=False)
class _Work:
    ticket: str | None
    why: str | None = None
    """It shall end, if there is a reason."""


class AtWork:
    """The verbs at work. One that nobody wants any more ends after the step that it is in."""

    def __init__(self) -> None:
        self._works: set[_Work] = set()
        self._ending = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def begun(
        self, ticket: str | None, is_there: Callable[[], bool]
    ) -> Iterator[Callable[[], str | None]]:
        """While a verb works for a command that `is_there`. Yields what tells why it shall end."""
        work = _Work(ticket, THE_DAEMON_STOPS if self._ending else None)
        self._works.add(work)
        self._idle.clear()
        try:
            yield lambda: work.why or (None if is_there() else "its command has gone")
        finally:
            self._works.discard(work)
            if not self._works:
                self._idle.set()

    def stop(self, ticket: str) -> None:
        """Whoever has asked for it wants no more of it."""
        for work in self._works:
            if work.ticket == ticket:
                work.why = "interrupted"

    def stop_all(self) -> None:
        """Those that are at work, and whatever comes still."""
        self._ending = True
        for work in self._works:
            work.why = THE_DAEMON_STOPS

    async def ended(self) -> None:
        """Wait until none is at work: after `stop_all` a step, in which all waits have an end."""
        await self._idle.wait()
