"""In whatever order patches are given back, their run never falls back to an older value."""

import json
import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stores import NOON, dead, delivered

from syncd.core.fold import Fold, fold
from syncd.core.patch import Patch
from syncd.store import Selection, accept, schema, settle, verbs
from syncd.store.connection import transaction
from syncd.store.lane import load_lane


class Desk:
    """One run, its vendor, and an operator at work. A key's value is the number of its patch."""

    def __init__(self, db: sqlite3.Connection, keys: list[str]) -> None:
        self.db = db
        self.vendor: dict[str, int] = {}
        self.out: Fold | None = None
        for _, script in schema._migrations():
            db.executescript(script)
        patches = [
            Patch("r", None, json.dumps(dict.fromkeys(them, n)))
            for n, them in enumerate(keys, start=1)
        ]
        transaction(db, lambda db: accept.accept(db, patches, None, NOON))

    def settle(self, settlement: Any) -> None:
        transaction(self.db, lambda db: settle.settle(db, [settlement], NOON))

    def hold(self, patch_id: int) -> None:
        one = Selection(ids=(patch_id,))
        transaction(self.db, lambda db: verbs.hold(db, one, in_flight=(), now=NOON))

    def give_back(self, patch_id: int) -> None:
        one, ids = Selection(ids=(patch_id,)), self.out.ids if self.out else ()
        for verb in (verbs.retry, verbs.release):
            transaction(
                self.db, lambda db, v=verb: v(db, one, in_flight=ids, now=NOON, force=False)
            )

    def send(self) -> None:
        lane = load_lane(self.db, "r")
        if self.out is None and lane is not None:
            self.out = fold(lane.waiting)

    def answer(self) -> None:
        if self.out is not None:
            for key, newer in json.loads(self.out.body)["metadata"].items():
                assert newer >= self.vendor.get(key, 0), f"{key} has fallen back"
                self.vendor[key] = newer
            self.settle(delivered("r", *self.out.ids))
            self.out = None


@given(data=st.data())
@settings(max_examples=100)
def test_patches_given_back_in_any_order_never_undo_a_newer_one(data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from(["x", "y", "xy"]), min_size=2, max_size=6))
    order = data.draw(st.permutations(range(1, len(keys) + 1)))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        desk = Desk(db, keys)
        for patch_id in order:
            if data.draw(st.booleans()):
                desk.hold(patch_id)
            else:
                desk.settle(dead("r", patch_id))

        for patch_id in order:
            desk.give_back(patch_id)
            if data.draw(st.booleans()):
                desk.answer()  # of what was out while it was given back
            desk.send()
            if data.draw(st.booleans()):
                desk.answer()
        desk.answer()
        for patch_id in order:  # what was left alone because a newer one was in flight
            desk.give_back(patch_id)
        desk.send()
        desk.answer()

    assert desk.vendor == {key: n for n, them in enumerate(keys, start=1) for key in them}
