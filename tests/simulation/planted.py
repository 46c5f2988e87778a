"""Bugs, planted: each breaks one promise in a way that the simulation must notice."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from syncd import attempt, fence, gate, lanes, relay, settler
from syncd.core import (
    backoff,
    breaker,
    fold,
    outcome,
    pace,
    plan,
    retry_after,
    schedule,
    settlement,
    window,
)
from syncd.core.answer import Run
from syncd.core.outcome import Blame, Confirmed, Refused, Unavailable
from syncd.core.settlement import Dead
from syncd.store import (
    StoreUnavailable,
    facts,
    instants,
    lane,
    page,
    schema,
    settle,
    suspects,
    verbs,
)

Patch = pytest.MonkeyPatch


def drop_the_fence(bug: Patch) -> None:
    """Suspects are declared innocent unseen."""
    bug.setattr(fence, "at_risk", lambda suspect: frozenset())


def forget_an_unclean_stop(bug: Patch) -> None:
    """What was in flight at a kill is not suspected."""
    bug.setattr(suspects, "delivered_after_unclean_stop", lambda db, now, firsts: None)


def release_before_commit(bug: Patch) -> None:
    """A lane goes on before its answer is on disk."""

    async def settle_later(self: Any, *settlements: Any) -> None:
        self._waiting.append((settlements, settler.asyncio.get_running_loop().create_future()))
        self._work.set()

    bug.setattr(settler.Settler, "settle", settle_later)


def pace_too_fast(bug: Patch) -> None:
    """The spacing forgets that the first request of a second counts too."""
    bug.setattr(pace, "MARGIN", 0.96)


def forget_the_last_second(bug: Patch) -> None:
    """A restart believes that nobody has sent before it."""
    begin = pace.begin
    bug.setattr(
        pace,
        "begin",
        lambda limit, *, last_second_spent_until: begin(
            limit, last_second_spent_until=last_second_spent_until - 2.0
        ),
    )


def fold_without_barrier(bug: Patch) -> None:
    """Objects are folded onto what is there."""
    bug.setattr(fold, "_barrier_key", lambda older, newer: None)


def first_name_wins(bug: Patch) -> None:
    """A fold keeps the oldest name."""
    body = fold._body
    real = fold.fold

    def folded(waiting: Any, behind_first: Any = None) -> Any:
        request = real(waiting, behind_first)
        if len(request.ids) > 1 and waiting[0].name is not None:
            values = fold._decode_object(fold.msgspec.json.encode(_metadata(request.body)))
            return fold.Fold(request.ids, body(waiting[0].name, values), request.barrier)
        return request

    bug.setattr(plan, "fold", folded)


def _metadata(request_body: bytes) -> Any:
    return fold.msgspec.json.decode(request_body).get("metadata", {})


def newest_first(bug: Patch) -> None:
    """A lane is read from its newest patch on."""
    read = lane._lane

    def reversed_lane(*found: Any) -> Any:
        it = read(*found)
        it.waiting.reverse()
        return it

    bug.setattr(lane, "_lane", reversed_lane)


def two_at_once(bug: Patch) -> None:
    """A lane is not busy while its request is out."""
    take = schedule.Schedule.take

    def taken(self: Any, **how: Any) -> Any:
        lane = take(self, **how)
        if lane is not None:
            self._busy.discard(lane.run)
            schedule.heapq.heappush(self._line(lane), schedule._rank(lane))
        return lane

    bug.setattr(schedule.Schedule, "take", taken)


def counters_drift(bug: Patch) -> None:
    """A patch that leaves a state is still counted there."""
    scripts = schema._migrations()
    altered = [
        (
            number,
            script.replace("UPDATE counters SET n = n - 1 WHERE state = OLD.state;\n  UPD", "UPD"),
        )
        for number, script in scripts
    ]
    assert altered != scripts
    bug.setattr(schema, "_migrations", lambda: altered)


def deferred_drifts(bug: Patch) -> None:
    """What comes for a run in trouble is not counted as deferred."""
    scripts = schema._migrations()
    altered = [
        (number, script.replace("SET waiting = waiting + 1 WHERE", "SET waiting = waiting WHERE"))
        for number, script in scripts
    ]
    assert altered != scripts
    bug.setattr(schema, "_migrations", lambda: altered)


def forget_retry_after(bug: Patch) -> None:
    """The header is not read."""
    bug.setattr(retry_after, "asked_for", lambda header, now: retry_after.RetryAfter())


def forget_retry_after_at_restart(bug: Patch) -> None:
    """A restart breaks the silence that the server asked for."""
    bug.setattr(settle, "stay_silent", lambda db, until, now: None)


def shorten_the_silence(bug: Patch) -> None:
    """The last Retry-After counts, even if one before it asked for more."""
    real = settle.stay_silent

    def shortened(db: Any, until: float, now: float) -> None:
        facts.set_fact(db, facts.CLOSED_UNTIL, None)
        real(db, until, now)

    bug.setattr(settle, "stay_silent", shortened)


def go_before_the_time(bug: Patch) -> None:
    """A new patch brings its whole lane back, backoff or not."""
    read = lane._lane

    def carefree(*found: Any) -> Any:
        it = read(*found)
        it.troubled = False
        return it

    bug.setattr(lane, "_lane", carefree)


def sleep_through_lost_wakes(bug: Patch) -> None:
    """What nobody has announced is never looked for."""
    bug.setattr(lanes, "SLOW_LOOK_S", 1e6)


def do_not_hear_a_pause(bug: Patch) -> None:
    """An operator has said stop."""
    bug.setattr(gate.Gate, "pause", lambda self: None)


def reload_leaves_the_limit(bug: Patch) -> None:
    """A reload is confirmed, and the old rate goes on."""
    bug.setattr(pace, "limited", lambda pace, limit, now: pace)


def reload_breaks_the_silence(bug: Patch) -> None:
    """New settings, and all that was promised is forgotten."""
    real = gate.Gate.limit

    def limited(self: Any, limits: Any) -> None:
        self._closed_until = 0.0
        real(self, limits)

    bug.setattr(gate.Gate, "limit", limited)


def ignore_the_clock(bug: Patch) -> None:
    """What was due in a minute is due in an hour and a minute."""
    bug.setattr(instants, "move", lambda db, booted_at, now: None)


def do_not_see_a_step_while_nobody_runs(bug: Patch) -> None:
    """Each daemon believes that the machine has booted anew."""
    begin = instants.begin
    boots = itertools.count()
    bug.setattr(
        instants,
        "begin",
        lambda db, now, boot, booted_at: begin(db, now, f"boot {next(boots)}", booted_at),
    )


def call_a_cut_drain_clean(bug: Patch) -> None:
    """Answers that were not waited for are forgotten at the stop."""
    none = property(lambda self: 0, lambda self, requests: None)
    bug.setattr(relay.Relay, "cut", none, raising=False)


def try_again_at_once(bug: Patch) -> None:
    """Failures in a row make nobody wait."""
    bug.setattr(backoff, "delay", lambda *arguments, **limits: 0.0)


def probe_at_once(bug: Patch) -> None:
    """A service that is down is asked all the time whether it is up."""
    bug.setattr(backoff, "patient", lambda *arguments, **limits: 0.0)


def never_break(bug: Patch) -> None:
    """Each lane finds out by itself that the service is down."""
    bug.setattr(breaker, "STREAK", 10**9)


def go_on_after_an_unspecific_429(bug: Patch) -> None:
    """Too fast, but it did not say how long."""
    bug.setattr(gate, "UNASKED_PAUSE_S", 0.0)


def read_back_without_end(bug: Patch) -> None:
    """The fence takes as much of the limit as it can get."""
    bug.setattr(fence, "SHARE", 10.0)


def give_up_on_a_full_disk(bug: Patch) -> None:
    """An answer that cannot be written down is forgotten."""

    async def write(self: Any, settlements: Any) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._store.settle(settlements)

    bug.setattr(settler.Settler, "_write", write)


def bury_the_whole_fold(bug: Patch) -> None:
    """A refused fold is not taken apart: all its patches die."""
    real = settlement.settlements

    def buried(lane: Any, request: Any, result: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(result, Refused) and len(request.ids) > 1:
            return [Dead(lane.run, request.ids, result.trouble, lane.troubled)]
        return real(lane, request, result, *rest, **more)

    bug.setattr(attempt, "settlements", buried)


def blame_patches_for_the_token(bug: Patch) -> None:
    """A 401 parks the patch."""
    bug.setattr(outcome, "_CREDENTIALS_STATUSES", frozenset())


def believe_any_run(bug: Patch) -> None:
    """A 2xx with another run's id counts as delivered."""
    real = outcome.classify

    def believing(answer: Any, run_id: str, now: float) -> Any:
        result = real(answer, run_id, now)
        if isinstance(result, Unavailable) and result.trouble.code == "wrong_run":
            return Confirmed(Run(run_id, b"{}", None, None, None))
        return result

    bug.setattr(attempt, "classify", believing)


def believe_a_lost_answer(bug: Patch) -> None:
    """No answer counts as delivered."""
    real = outcome.classify

    def believing(answer: Any, run_id: str, now: float) -> Any:
        result = real(answer, run_id, now)
        if isinstance(result, Unavailable) and result.trouble.code == "timeout":
            return Confirmed(Run(run_id, b"{}", None, None, None))
        return result

    bug.setattr(attempt, "classify", believing)


def retry_over_newer_values(bug: Patch) -> None:
    """An operator's retry sends what newer patches have set since."""
    bug.setattr(verbs._Newer, "keys_since", lambda self, row: frozenset())


def sleep_through_due_times(bug: Patch) -> None:
    """Lanes in trouble are never read again."""
    bug.setattr(page, "due_lanes", lambda *asked, **how: ([], []))


def open_window(bug: Patch) -> None:
    """The window forgets the operator's bound."""
    bug.setattr(window, "slots", lambda state: 64)


def probe_without_end(bug: Patch) -> None:
    """The breaker never closes."""
    bug.setattr(breaker, "good", lambda state: state)


def lose_what_waits(bug: Patch) -> None:
    """A refused patch takes its whole lane along."""
    real = settlement.settlements

    def lost(lane: Any, request: Any, result: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(result, Refused) and result.trouble.blame is Blame.PATCH:
            return [settlement.RunDead(lane.run, result.trouble)]
        return real(lane, request, result, *rest, **more)

    bug.setattr(attempt, "settlements", lost)


BUGS: tuple[Callable[[Patch], None], ...] = (
    drop_the_fence,
    forget_an_unclean_stop,
    release_before_commit,
    pace_too_fast,
    forget_the_last_second,
    fold_without_barrier,
    first_name_wins,
    newest_first,
    two_at_once,
    counters_drift,
    deferred_drifts,
    forget_retry_after,
    forget_retry_after_at_restart,
    shorten_the_silence,
    go_before_the_time,
    sleep_through_lost_wakes,
    do_not_hear_a_pause,
    do_not_see_a_step_while_nobody_runs,
    call_a_cut_drain_clean,
    try_again_at_once,
    probe_at_once,
    never_break,
    go_on_after_an_unspecific_429,
    read_back_without_end,
    reload_breaks_the_silence,
    reload_leaves_the_limit,
    ignore_the_clock,
    give_up_on_a_full_disk,
    bury_the_whole_fold,
    blame_patches_for_the_token,
    believe_any_run,
    believe_a_lost_answer,
    retry_over_newer_values,
    sleep_through_due_times,
    open_window,
    probe_without_end,
    lose_what_waits,
)
