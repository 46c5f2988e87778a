"""The witness: looks at every request in the moment in which it leaves, and at the outbox then."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

from syncd.store import read

GRACE_S = 0.01  # between being let through the gate and leaving
SETTLING_S = 2.0  # an answer may take so long to the disk

_DEFERRED = """
SELECT count(*) FROM lanes CROSS JOIN outbox USING (workflow_run_id)
 WHERE lanes.due_at > ? AND outbox.state = 'pending'
"""


class Witness:
    """Knows when nothing may be sent, and what must go first."""

    def __init__(
        self,
        path: Path,
        wall: Callable[[], float],
        in_flight: Callable[[], Collection[str]],
        accepted: Collection[str],
        *,
        rate: float,
        disk_is_well: bool,
    ) -> None:
        self._path = path
        self._in_flight = in_flight
        self._accepted = accepted
        self._rate = rate
        self._disk_is_well = disk_is_well
        self._deaths = 0
        self._wall = wall
        self._db: sqlite3.Connection | None = None
        self.violations: list[str] = []
        self.silent_until = 0.0
        """By the last Retry-After; on the loop's clock."""
        self._asked_at = 0.0
        self._hush_until = 0.0
        self._may_read_at = 0.0
        self.closed_since: float | None = None
        """The gate is shut by an operator."""
        self._due_at_step: dict[str, tuple[float, float]] = {}

    def leaves(self, run_id: str, body: bytes | None) -> None:
        """Judge a request by what is on disk now."""
        now = asyncio.get_running_loop().time()
        if now < self.silent_until - 0.001:
            self._broken("a request before Retry-After is over")
        if self.closed_since is not None and now > self.closed_since + GRACE_S:
            self._broken("a request through a gate that an operator has shut")
        if now < self._hush_until:
            self._broken("a request less than a second after a 429 that named no time")
        db = self._connected()
        self._balance(db)
        if body is None:
            if now < self._may_read_at:
                self._broken("the fence reads more than a tenth of the limit")
            self._may_read_at = now + 10.0 / self._rate - GRACE_S
            return
        if run_id not in self._in_flight():
            self._broken(f"a request for {run_id}, which nobody knows to be in flight")
        due = db.execute("SELECT due_at FROM lanes WHERE workflow_run_id = ?", (run_id,)).fetchone()
        if due is not None and due[0] > max(self._wall(), self._clock_on_disk()) + GRACE_S:
            self._broken(f"a request for {run_id} {due[0] - self._wall():.1f} s before its time")
        # An operator may have brought it forward since: then it is another instant on disk.
        known = self._due_at_step.get(run_id)
        if known is not None and due == known[:1] and now < known[1] - GRACE_S:
            self._broken(f"a request for {run_id}, due {known[1] - now:.1f} s later but for a step")
        first = db.execute(
            "SELECT id, metadata FROM outbox"
            " WHERE workflow_run_id = ? AND state = 'pending'"
            " ORDER BY id LIMIT 1",
            (run_id,),
        ).fetchone()
        if first is None:
            self._broken(f"a request for {run_id}, for which nothing is pending")
        elif mark_of(first[1]) not in json.loads(body).get("metadata", {}):
            self._broken(f"a request for {run_id} passes patch {first[0]} by")

    def trouble_is_over(self, what: str, requests: int, most: float) -> None:
        """Nothing could be delivered for a while, and so many requests were sent all the same."""
        if requests > most:
            self._broken(f"{requests} requests during {what}, where {most:.0f} are plenty")

    def _balance(self, db: sqlite3.Connection) -> None:
        """Whatever was accepted is there, and counted where it is."""
        rows = dict(db.execute("SELECT state, count(*) FROM outbox GROUP BY state"))
        counted = dict(db.execute("SELECT state, n FROM counters WHERE state <> 'snapshots'"))
        if {state: n for state, n in counted.items() if n} != rows:
            self._broken(f"the counters say {counted}, the rows {rows}")
        (deferred,) = db.execute(_DEFERRED, (now := self._wall(),)).fetchone()
        if (told := read.deferred(db, now)) != deferred:
            self._broken(f"status tells of {told} patches deferred, there are {deferred}")
        if sum(rows.values()) < len(self._accepted):
            self._broken(f"{len(self._accepted)} patches are accepted, {sum(rows.values())} there")

    def asked_for_silence(self, seconds: float) -> None:
        """An answer has brought a Retry-After."""
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        self.silent_until = max(self.silent_until, self._asked_at + seconds)
        if self._disk_is_well:
            loop.call_later(SETTLING_S, self._must_outlive, self._deaths)

    def throttled(self) -> None:
        """A 429 names no time: the second of which it may have counted the end must pass."""
        self._hush_until = asyncio.get_running_loop().time() + 1.0

    def died(self, *, unsettled: bool) -> None:
        """The daemon was killed: of a Retry-After that was not on disk yet nobody knows."""
        self._deaths += 1
        self._may_read_at = 0.0
        now = asyncio.get_running_loop().time()
        if unsettled or now < self._asked_at + SETTLING_S:
            self.silent_until = min(self.silent_until, now + max(0.0, self._silence_on_disk_s()))

    def clock_steps(self) -> None:
        """Nobody runs, and the clock is about to be stepped: what was to wait shall wait on."""
        now, wall = asyncio.get_running_loop().time(), self._wall()
        for run_id, due_at in self.runs_that_wait():
            self._due_at_step[run_id] = due_at, now + due_at - wall

    def runs_that_wait(self) -> list[tuple[str, float]]:
        """Those that failed and are to be tried again, and when."""
        lanes = "SELECT workflow_run_id, due_at FROM lanes WHERE due_at > ?"
        return self._connected().execute(lanes, (self._wall(),)).fetchall()

    def _clock_on_disk(self) -> float:
        """The clock that due times go by. It is ahead of the daemon's where the commit of a step
        seemed to fail, and was made: the daemon follows when it tries again."""
        found = self._connected().execute("SELECT value FROM facts WHERE name = 'booted'")
        booted_at: float = json.loads(found.fetchone()[0])["at"]
        return booted_at + asyncio.get_running_loop().time()

    def _must_outlive(self, deaths: int) -> None:
        """A Retry-After is on disk by now, so that a restart will not break it."""
        left_s = self.silent_until - asyncio.get_running_loop().time()
        if deaths == self._deaths and left_s > max(0.0, self._silence_on_disk_s()) + GRACE_S:
            self._broken(f"a restart would break the last {left_s:.1f} s of silence")

    def _silence_on_disk_s(self) -> float:
        row = self._connected().execute("SELECT value FROM facts WHERE name = 'closed_until'")
        known = row.fetchone()
        return float(known[0]) - self._wall() if known else 0.0

    def close(self) -> None:
        """Look no more."""
        if self._db is not None:
            self._db.close()

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._path, isolation_level=None)
        return self._db

    def _broken(self, how: str) -> None:
        self.violations.append(f"{asyncio.get_running_loop().time():.3f}: {how}")


def mark_of(metadata: str) -> str:
    """The key that is this patch's alone."""
    keys: list[str] = json.loads(metadata)
    return next(key for key in keys if key.startswith("mark"))
