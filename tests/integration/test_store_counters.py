"""The counters that nobody recounts: right after any sequence of what can happen to patches."""

import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stores import NOON, dead, deferred, delivered, run_dead

from syncd.core.patch import Patch
from syncd.store import Place, Selection, accept, retention, settle, verbs
from syncd.store.connection import transaction
from syncd.store.schema import open_writer

RUNS = st.sampled_from("abc")
KEYS = st.none() | st.sampled_from(["k1", "k2", "k3"])
METADATA = st.sampled_from(["{}", '{"a":1}', '{"a":2,"b":2}', '{"b":3}'])
SELECTIONS = st.one_of(
    st.builds(Selection, ids=st.lists(st.integers(1, 30), max_size=4).map(tuple)),
    st.builds(Selection, run=RUNS),
    st.builds(Selection, reason=st.sampled_from(["INVALID_REQUEST", "NOT_FOUND", "operator"])),
    st.just(Selection(everything=True)),
)


class CutOff(Exception):
    """The process dies before the commit."""


class StoreMachine(RuleBasedStateMachine):
    """Everything that changes rows, in any order, some of it cut off before its commit."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.db = open_writer(Path(self.folder.name) / "s.db")
        self.db.execute("PRAGMA synchronous = OFF")
        self.now = NOON
        self.batches: list[int] = []

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    def commit(self, work: Any, cut_off: bool = False) -> None:
        def whole(db: sqlite3.Connection) -> None:
            work(db)
            if cut_off:
                raise CutOff

        with suppress(CutOff):
            transaction(self.db, whole)

    def pending(self, run: str) -> list[int]:
        found = self.db.execute(
            "SELECT id FROM outbox WHERE workflow_run_id = ? AND state = 'pending' ORDER BY id",
            (run,),
        )
        return [patch_id for (patch_id,) in found]

    @rule(
        patches=st.lists(st.tuples(RUNS, METADATA, KEYS), min_size=1, max_size=5),
        of_a_file=st.booleans(),
        cut_off=st.booleans(),
    )
    def take_in(
        self, patches: list[tuple[str, str, str | None]], of_a_file: bool, cut_off: bool
    ) -> None:
        them = [Patch(run, None, metadata, key) for run, metadata, key in patches]
        place = None
        if of_a_file:
            opened: list[Place] = []
            self.commit(lambda db: opened.append(accept.open_batch(db, "f", "spool", self.now)))
            place = opened[0]
        self.commit(lambda db: accept.accept(db, them, place, self.now), cut_off)

    @rule(run=RUNS, metadata=METADATA, key=KEYS, clause=st.sampled_from(["", "OR REPLACE"]))
    def insert(self, run: str, metadata: str, key: str | None, clause: str) -> None:
        self.db.execute(
            f"INSERT {clause} INTO outbox (workflow_run_id, metadata, idempotency_key)"
            " VALUES (?, ?, ?)",
            (run, metadata, key),
        )

    @rule(run=RUNS, most=st.integers(1, 3), troubled=st.booleans(), cut_off=st.booleans())
    def deliver(self, run: str, most: int, troubled: bool, cut_off: bool) -> None:
        if ids := self.pending(run)[:most]:
            one = delivered(run, *ids, troubled=troubled)
            self.commit(lambda db: settle.settle(db, [one], self.now), cut_off)

    @rule(run=RUNS, kind=st.sampled_from(["dead", "run dead", "deferred"]), cut_off=st.booleans())
    def refuse(self, run: str, kind: str, cut_off: bool) -> None:
        if ids := self.pending(run):
            one = {
                "dead": dead(run, ids[0]),
                "run dead": run_dead(run),
                "deferred": deferred(run, ids[0], due_at=self.now + 5),
            }[kind]
            self.commit(lambda db: settle.settle(db, [one], self.now), cut_off)

    @rule(
        verb=st.sampled_from(["retry", "release", "discard", "hold"]),
        selection=SELECTIONS,
        in_flight=st.frozensets(st.integers(1, 30), max_size=3),
        force=st.booleans(),
        cut_off=st.booleans(),
    )
    def operate(
        self,
        verb: str,
        selection: Selection,
        in_flight: frozenset[int],
        force: bool,
        cut_off: bool,
    ) -> None:
        how: dict[str, Any] = {"in_flight": in_flight, "now": self.now}
        if verb in ("retry", "release"):
            how["force"] = force
        self.commit(lambda db: getattr(verbs, verb)(db, selection, **how), cut_off)

    @rule(before_s=st.sampled_from([0.0, 100.0]), cut_off=st.booleans())
    def forget(self, before_s: float, cut_off: bool) -> None:
        self.commit(lambda db: retention.sweep(db, 0, NOON + before_s), cut_off)

    @rule()
    def close_the_file(self) -> None:
        for (batch,) in self.db.execute("SELECT id FROM batches").fetchall():
            self.commit(lambda db, batch=batch: accept.close_batch(db, batch, self.now))

    @rule()
    def time_passes(self) -> None:
        self.now += 30.0

    @invariant()
    def counters_equal_a_recount(self) -> None:
        kept = dict(self.db.execute("SELECT state, n FROM counters"))
        counted = dict(self.db.execute("SELECT state, count(*) FROM outbox GROUP BY state"))
        counted["snapshots"] = self.db.execute("SELECT count(*) FROM snapshots").fetchone()[0]

        assert kept == dict.fromkeys(kept, 0) | counted

    @invariant()
    def files_know_what_still_waits(self) -> None:
        for batch, left, dead_now, waiting, dead_kept in self.db.execute(
            "SELECT b.id, count(o.id) FILTER (WHERE o.state IN ('pending', 'held')),"
            "       count(o.id) FILTER (WHERE o.state = 'dead'),"
            "       accepted - delivered - dead - discarded, dead"
            "  FROM batches AS b LEFT JOIN outbox AS o ON o.batch_id = b.id GROUP BY b.id"
        ):
            assert (left, dead_now) == (waiting, dead_kept), batch

    @invariant()
    def final_states_have_their_time_and_dead_ones_their_reason(self) -> None:
        wrong = self.db.execute(
            "SELECT id FROM outbox"
            " WHERE (settled_at IS NULL) <> (state IN ('pending', 'held'))"
            "    OR (reason IS NULL AND state IN ('dead', 'held', 'discarded'))"
            "    OR (state = 'dead' AND last_error IS NULL)"
        ).fetchall()

        assert wrong == []


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=25)
