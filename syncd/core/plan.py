"""What goes next: the requests in their order, as lanes stand now. The relay asks one at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from syncd.core.fold import MAX_MEMBERS, Barrier, Fold, fold
from syncd.core.schedule import Lane, Schedule

UNSENDABLE = "its name or metadata is not JSON in UTF-8"
Rest = Callable[[str, int], Lane | None]
"""The lane of a run beyond a patch, as the outbox has it; None if nothing waits there."""


@dataclass(frozen=True, slots=True)
class Apart:
    """The next patch of a run, which does not go along with the ones before it."""

    patch_id: int
    barrier: Barrier
    key: str | None
    """The key that the barrier stands at, if it is one of VALUE."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to come."""

    run: str
    priority: int
    patch_ids: tuple[int, ...]
    body: bytes | None
    """None if the patch cannot be sent at all: it will be parked."""
    apart: Apart | None
    """Where the fold ends; None if the run has nothing beyond it."""


def request_of(lane: Lane, *, folding: bool) -> Fold | None:
    """The lane's next request; None if its first patch cannot be sent at all."""
    behind_first: Barrier | None = None
    if not folding:
        behind_first = Barrier.OFF
    elif lane.waiting[0].id <= lane.alone_until:
        behind_first = Barrier.ALONE
    try:
        return fold(lane.waiting, behind_first)
    except ValueError:
        return None


def requests(lanes: Iterable[Lane], rest: Rest, *, folding: bool) -> Iterator[Request]:
    """The requests to come, as if each were answered, and its patches delivered, at once.

    The lanes are used up by it.
    """
    schedule = Schedule()
    schedule.add(lanes)
    while (lane := schedule.take()) is not None:
        request, following = _next(lane, rest, folding=folding)
        yield request
        if following is None:
            schedule.drop(lane.run)
        else:
            schedule.give_back(following)


def own_requests(lane: Lane, rest: Rest, *, folding: bool, most: int) -> Iterator[Request]:
    """The requests of one lane alone, in their order; at most so many."""
    return islice(requests([lane], rest, folding=folding), most)


def _next(lane: Lane, rest: Rest, *, folding: bool) -> tuple[Request, Lane | None]:
    """The lane's next request, and the lane after it."""
    found = request_of(lane, folding=folding)
    first = lane.waiting[0].id
    ids = (first,) if found is None else found.ids
    following: Lane | None = lane
    lane.waiting = lane.waiting[len(ids) :]
    if lane.more:  # as the relay does: what is there now may fold otherwise than what was loaded
        following = rest(lane.run, ids[-1])
        if following is not None:
            following.alone_until = lane.alone_until
    elif not lane.waiting:
        following = None
    apart = None
    if following is not None and found is not None:
        barrier = found.barrier or (Barrier.COUNT if len(ids) == MAX_MEMBERS else Barrier.UNREAD)
        apart = Apart(following.waiting[0].id, barrier, found.key)
    body = None if found is None else found.body
    return Request(lane.run, lane.priority, ids, body, apart), following
