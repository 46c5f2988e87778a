"""The counters that nobody recounts: right after any sequence of what can happen to patches."""

import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stores import NOON, dead, deferred, delivered, run_dead

from syncd.core.patch import Patch
from syncd.core.suspect import Suspect
from syncd.store import (
    Place,
    Selection,
    accept,
    instants,
    integrity,
    read,
    retention,
    settle,
    suspects,
    verbs,
)
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


def deferred_by_rows(db: sqlite3.Connection, at: float) -> int:
    """Patches that wait for their run's next attempt, counted one by one."""
    (n,) = db.execute(
        "SELECT count(*) FROM outbox JOIN lanes USING (workflow_run_id)"
        " WHERE outbox.state = 'pending' AND lanes.due_at > ?",
        (at,),
    ).fetchone()
    return int(n)


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
        """To say in vain that the run is in trouble does no harm; to hide it is never done."""
        lane = self.db.execute("SELECT 1 FROM lanes WHERE workflow_run_id = ?", (run,)).fetchone()
        if ids := self.pending(run)[:most]:
            one = delivered(run, *ids, troubled=troubled or lane is not None)
            self.commit(lambda db: settle.settle(db, [one], self.now), cut_off)

    @rule(
        run=RUNS,
        kind=st.sampled_from(["dead", "run dead", "deferred"]),
        wait_s=st.sampled_from([0.0, 0.3, 5.0, 5.3, 40.0]),
        cut_off=st.booleans(),
    )
    def refuse(self, run: str, kind: str, wait_s: float, cut_off: bool) -> None:
        if ids := self.pending(run):
            one = {
                "dead": dead(run, ids[0]),
                "run dead": run_dead(run),
                "deferred": deferred(run, ids[0], due_at=self.now + wait_s),
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

    @rule(by_s=st.sampled_from([0.2, 0.8, 5.0, 30.0]))
    def time_passes(self, by_s: float) -> None:
        self.now += by_s

    @rule(cut_off=st.booleans())
    def recall(self, cut_off: bool) -> None:
        self.commit(lambda db: settle.recall(db, self.now), cut_off)

    @rule(run=RUNS)
    def end_the_trouble(self, run: str) -> None:
        if not self.pending(run):
            self.commit(lambda db: settle.untrouble(db, [run]))

    @rule(step_s=st.sampled_from([-90.0, 2.5]), cut_off=st.booleans())
    def step_the_clock(self, step_s: float, cut_off: bool) -> None:
        self.commit(lambda db: instants.begin(db, self.now, "boot", 0.0))
        (at,) = self.db.execute("SELECT value ->> 'at' FROM facts WHERE name = 'booted'").fetchone()
        self.commit(lambda db: instants.move(db, at + step_s, self.now), cut_off)

    @rule(run=RUNS, key=st.sampled_from("ab"), cut_off=st.booleans())
    def send_again(self, run: str, key: str, cut_off: bool) -> None:
        suspect = Suspect(run, 1, 1, (), (), {})
        self.commit(lambda db: suspects.send_again(db, suspect, {key}), cut_off)

    @invariant()
    def counters_equal_a_recount(self) -> None:
        kept = dict(self.db.execute("SELECT state, n FROM counters"))
        counted = dict(self.db.execute("SELECT state, count(*) FROM outbox GROUP BY state"))
        counted["snapshots"] = self.db.execute("SELECT count(*) FROM snapshots").fetchone()[0]

        assert kept == dict.fromkeys(kept, 0) | counted
        assert list(integrity.miscounts(self.db)) == []

    @invariant()
    def status_tells_how_many_are_deferred_at_any_moment(self) -> None:
        for at in (self.now, self.now + 0.3, self.now + 5.0, self.now + 20.0):
            assert read.outbox(self.db, at)["outbox"]["deferred"] == deferred_by_rows(self.db, at)

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


def open_with(path: Path, *runs: str) -> sqlite3.Connection:
    """A new database in which a patch of each of these waits."""
    db = open_writer(path)
    them = [Patch(run, None, '{"a":1}') for run in runs]
    transaction(db, lambda db: accept.accept(db, them, None, NOON))
    return db


def test_what_is_deferred_is_told_right_from_the_failure_to_the_end(tmp_path: Path) -> None:
    """Six patches of run a, and one that never failed; a kill leaves what was committed."""
    path = tmp_path / "s.db"
    every, one, run_a = Selection(everything=True), Selection(ids=(2,)), Selection(run="a")
    now, out = NOON, frozenset[int]()
    again = deferred("a", 1, due_at=NOON + 9)
    steps: list[tuple[str, Any, int]] = [
        ("fails", lambda db: settle.settle(db, [again], now), 4),
        ("comes", lambda db: accept.accept(db, [Patch("a", "n")] * 2, None, now), 6),
        ("fails again", lambda db: settle.settle(db, [again], now), 6),
        ("is held", lambda db: verbs.hold(db, one, in_flight=out, now=now), 5),
        ("is released", lambda db: verbs.release(db, one, in_flight=out, now=now, force=True), 6),
        ("is refused", lambda db: settle.settle(db, [dead("a", 2)], now), 5),
        ("goes back", lambda db: verbs.retry(db, one, in_flight=out, now=now - 1, force=True), 6),
        ("is discarded", lambda db: verbs.discard(db, one, in_flight=out, now=now), 5),
        ("is due", lambda db: verbs.retry(db, run_a, in_flight=out, now=now, force=False), 0),
        ("fails once more", lambda db: settle.settle(db, [again], now), 5),
        ("another's arrives", lambda db: settle.settle(db, [delivered("b", 5)], now), 5),
        ("arrives", lambda db: settle.settle(db, [delivered("a", 1, troubled=True)], now), 0),
        ("fails then", lambda db: settle.settle(db, [deferred("a", 3, due_at=NOON + 9)], now), 4),
        ("is unknown", lambda db: settle.settle(db, [run_dead("a")], now), 0),
        ("all go back", lambda db: verbs.retry(db, every, in_flight=out, now=now, force=True), 0),
        ("and fail", lambda db: settle.settle(db, [deferred("a", 3, due_at=NOON + 9)], now), 4),
        ("all discarded", lambda db: verbs.discard(db, every, in_flight=out, now=now), 0),
    ]
    db = open_with(path, "a", "a", "a", "a", "b")
    for what, step, expected in steps:
        transaction(db, step)
        db.execute("BEGIN")
        accept.accept(db, [Patch("a", "killed before the commit")], None, now)
        left = tmp_path / "left.db"
        for end in ("", "-wal"):
            Path(f"{left}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
        db.execute("ROLLBACK")
        with closing(open_writer(left)) as found:
            told = read.outbox(found, now)["outbox"]["deferred"]

            assert (what, told) == (what, expected)
            assert (what, list(integrity.flaws(found))) == (what, [])
    db.close()


def test_a_counter_of_what_is_deferred_that_drifts_is_found(tmp_path: Path) -> None:
    with closing(open_with(tmp_path / "s.db", "a", "a", "b")) as db:
        transaction(db, lambda db: settle.settle(db, [deferred("a", 1, due_at=NOON + 9)], NOON))
        sound = list(integrity.flaws(db))
        db.execute("UPDATE lanes SET waiting = 7")
        of_a_lane = list(integrity.flaws(db))
        db.execute("UPDATE lanes SET waiting = 2")
        db.execute("UPDATE deferred SET n = 5")
        db.execute("INSERT INTO deferred VALUES (1, 3)")
        of_seconds = list(integrity.flaws(db))

    assert sound == []
    assert of_a_lane == ["the counter of what waits for a, a run in trouble, says 7, there are 2"]
    assert of_seconds == [
        "the counter of deferred for the second 1 says 3, there are 0",
        f"the counter of deferred for the second {NOON + 9:.0f} says 5, there are 2",
    ]


def test_status_looks_at_as_little_however_many_runs_are_in_trouble(tmp_path: Path) -> None:
    def steps(many: int) -> int:
        runs = [f"r{n}" for n in range(many)]
        with closing(open_with(tmp_path / f"{many}.db", *runs)) as db:
            failed = [deferred(run, n + 1, due_at=NOON + 2 + n % 5) for n, run in enumerate(runs)]
            transaction(db, lambda db: settle.settle(db, failed, NOON))
            taken: list[None] = []
            db.set_progress_handler(lambda: taken.append(None), 1)
            told = read.outbox(db, NOON)["outbox"]["deferred"]
            last_due_s = read.last_due_s(db, NOON)
        assert (told, last_due_s) == (many, 6.0)
        return len(taken)

    assert steps(2000) == steps(20)
