"""Reading back what a late request may have set back sends nothing again without need."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stage import CAP_S, READ, TIMEOUT_S, Stage, Vendor, on_stage, virtually

from syncd import log
from syncd.core.answer import NoReply, NotSent, Reply
from syncd.core.suspect import Suspect
from syncd.selftest.store import Inline, Life
from syncd.store import Selection, Verb
from syncd.verbs import operate

LOST = NoReply("timeout", "no answer", ambiguous=True)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Planned trouble is not worth a line each."""
    log.setup("critical")


async def in_doubt(stage: Stage, *metadata: str) -> None:
    """Deliver these one after the other; the first one's first request gets no answer."""
    first, *others = metadata
    stage.vendor.otherwise = LOST
    stage.insert([("run", None, first)])
    while not stage.vendor.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    stage.vendor.otherwise = None
    await stage.delivered(1, within_s=TIMEOUT_S)
    for number, one in enumerate(others, start=2):
        stage.insert([("run", None, one)])
        await stage.delivered(number, within_s=TIMEOUT_S)


@pytest.mark.parametrize("reread", [True, False], ids=["while it runs", "after a restart"])
def test_an_object_that_is_as_it_was_confirmed_is_not_sent_again(
    tmp_path: Path, reread: bool
) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"doc":{"v":1}}', '{"doc":{"v":2}}', '{"other":1}')
            if reread:
                await stage.drained(within_s=4 * TIMEOUT_S)
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await stage.drained(within_s=4 * TIMEOUT_S)

        bodies = [body for _, _, body, _ in vendor.requests]
        assert bodies.count(READ) == 1
        assert len(bodies) == 5
        assert vendor.runs["run"]["metadata"] == {"doc": {"v": 2}, "other": 1}

    virtually(play())


def test_what_was_set_back_is_mended_and_nothing_older_is_set_on_the_way(tmp_path: Path) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(
                stage,
                '{"doc":{"v":1},"k":1,"m":1}',
                '{"doc":{"v":2},"k":2}',
                '{"m":2}',
                '{"doc":{"v":3}}',
            )
            right = dict(vendor.runs["run"]["metadata"])
            vendor.runs["run"]["metadata"] |= {"doc": {"v": 1}, "k": 1}
            asked = len(vendor.requests)
            await stage.drained(within_s=4 * TIMEOUT_S)
            (last,) = stage.rows("SELECT last_patch_id FROM snapshots")
            chain = stage.rows("SELECT id, previous_id FROM outbox ORDER BY id")

        sent = [json.loads(body) for _, _, body, _ in vendor.requests[asked:] if body != READ]
        assert sent == [{"metadata": {"k": 2, "doc": {"v": 3}}}]
        assert vendor.runs["run"]["metadata"] == right
        assert (last, chain) == ((4,), [(1, None), (2, 1), (3, 2), (4, 3)])

    virtually(play())


def test_credentials_that_are_refused_are_asked_about_with_what_an_operator_retries(
    tmp_path: Path,
) -> None:
    """And with no read-back first, though one is due."""

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"doc":{"v":1}}', '{"doc":{"v":2}}')
            vendor.otherwise = Reply(401, b"{}")
            stage.insert([("first", None, '{"v":1}'), ("meant", None, '{"v":1}')])
            await asyncio.sleep(4 * TIMEOUT_S)
            asked = len(vendor.requests)
            done = await operate(stage.store, stage.relay, "retry", Selection(run="meant"))
            await asyncio.sleep(1.0)
            vendor.otherwise = None
            await stage.drained(within_s=4 * CAP_S)

        assert (done.asked, done.asked_with) == (True, "meant")
        assert vendor.requests[asked][1] == "meant"
        assert READ in [body for _, _, body, _ in vendor.requests]

    virtually(play())


def test_a_run_that_cannot_be_read_back_does_not_keep_others_from_it(tmp_path: Path) -> None:

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            cursed = ["cursed 1", "cursed 2", "cursed 3"]
            runs = [*cursed, "run"]
            vendor.otherwise = LOST
            stage.insert([(run, None, '{"v":1}') for run in runs])
            while len({run for _, run, _, _ in vendor.requests}) < len(runs):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            vendor.otherwise = None
            await stage.delivered(len(runs), within_s=2 * TIMEOUT_S)
            stage.insert([(run, None, '{"v":2}') for run in runs])
            await stage.delivered(2 * len(runs), within_s=TIMEOUT_S)

            vendor.refused = dict.fromkeys(cursed, Reply(500, b"{}"))
            vendor.runs["run"]["metadata"] = {"v": 1}
            while vendor.runs["run"]["metadata"] != {"v": 2}:
                await asyncio.sleep(0.1)
                assert stage.now < 8 * TIMEOUT_S, "the run has not been looked at"
            await asyncio.sleep(20 * TIMEOUT_S)
            stage.insert([("new", None, '{"v":1}')])
            await stage.delivered(2 * len(runs) + 1, within_s=1.0)

            vendor.refused = {}
            await stage.drained(within_s=CAP_S)

    virtually(play())


def test_what_was_not_sent_to_read_a_run_back_is_sent_later(tmp_path: Path) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"v":1}', '{"v":2}')
            vendor.runs["run"]["metadata"] = {"v": 1}
            vendor.otherwise = NotSent()
            while [body for _, _, body, _ in vendor.requests].count(READ) < 3:
                await asyncio.sleep(0.1)
                assert stage.now < 8 * TIMEOUT_S, "it is not tried again"
            vendor.otherwise = None
            await stage.drained(within_s=TIMEOUT_S)

            assert stage.gate.figures().in_flight == 0
        assert vendor.runs["run"]["metadata"] == {"v": 2}

    virtually(play())


@pytest.mark.parametrize(
    ("status", "mended"), [(400, True), (405, True), (422, True), (404, False), (410, False)]
)
def test_what_the_vendor_does_not_let_be_read_goes_again_unseen(
    tmp_path: Path, status: int, mended: bool
) -> None:
    """Once, unless the run is gone."""

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"v":1}', '{"v":2}')
            vendor.runs["run"]["metadata"] = {"v": 1}
            vendor.unread = Reply(status, b"{}")
            asked = len(vendor.requests)
            await stage.drained(within_s=4 * TIMEOUT_S)

        sent = [body for _, _, body, _ in vendor.requests[asked:]]
        assert sent == ([READ, b'{"metadata":{"v":2}}'] if mended else [READ])
        assert vendor.runs["run"]["metadata"] == {"v": 2 if mended else 1}

    virtually(play())


class Undoing(Vendor):
    """Each first request that sets `a` gets no answer, and has undone all that followed it."""

    def __init__(self) -> None:
        super().__init__()
        self.undoes = True
        self._again = False

    def _answer(self, run_id: str, body: bytes, now: float) -> Reply | NoReply | NotSent:
        if body == READ and self.undoes:
            self.runs[run_id]["metadata"] = {"doc": {"a": 1}}
        elif b'"a":' in body and self.undoes:
            self._again = not self._again
            if self._again:
                return LOST
        return super()._answer(run_id, body, now)


def test_what_is_undone_again_and_again_is_left_longer_each_time_and_told(tmp_path: Path) -> None:
    async def play() -> None:
        vendor = Undoing()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert([("run", None, '{"doc":{"a":1}}')])
            await stage.delivered(1, within_s=TIMEOUT_S)
            stage.insert([("run", None, '{"doc":{"b":2}}')])
            for reads in range(1, 6):
                while [body for _, _, body, _ in vendor.requests].count(READ) < reads:
                    await asyncio.sleep(0.1)
                    assert stage.now < 100 * TIMEOUT_S
                await asyncio.sleep(1.0)
                assert (stage.fence.trouble() is None) == (reads < 3)
            told = stage.fence.trouble()
            vendor.undoes = False
            await stage.drained(within_s=40 * TIMEOUT_S)

            assert told is not None
            assert told.startswith("run was sent again 5 times in a row;")
            assert stage.fence.trouble() is None
        at = [at for at, _, body, _ in vendor.requests if body == READ]
        gaps = [round((after - before) / (2 * TIMEOUT_S)) for before, after in pairwise(at)]
        assert gaps == [1, 2, 4, 8, 8]
        assert vendor.runs["run"]["metadata"]["doc"] == {"b": 2}

    virtually(play())


class SlowlyTold(Inline):
    """What is read of a suspect is known two seconds later."""

    def __init__(self, db: sqlite3.Connection, reads: asyncio.Event) -> None:
        super().__init__(db, Life(random.Random(5), 0.0))
        self._reads = reads

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        result = await super().run(work)
        if isinstance(result, tuple) and isinstance(result[0], Suspect):
            self._reads.set()
            await asyncio.sleep(2.0)
        return result


def test_what_was_delivered_while_a_suspect_was_read_counts(tmp_path: Path) -> None:
    async def play() -> None:
        vendor, reads = Vendor(), asyncio.Event()

        async def connect(opener: Callable[[Path], sqlite3.Connection], path: Path) -> Inline:
            return SlowlyTold(opener(path), reads)

        async with on_stage(tmp_path / "syncd.db", vendor, connect=connect) as stage:
            await in_doubt(stage, '{"v":1}')
            await reads.wait()
            stage.insert([("run", None, '{"v":2}')])
            await stage.delivered(2, within_s=1.5)
            vendor.runs["run"]["metadata"] = {"v": 1}
            await stage.drained(within_s=4 * TIMEOUT_S)

        assert vendor.runs["run"]["metadata"] == {"v": 2}

    virtually(play())


@pytest.mark.parametrize("verb", ["discard", "hold"])
def test_what_is_withdrawn_after_an_unclean_stop_may_have_been_in_flight(
    tmp_path: Path, verb: Verb
) -> None:
    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:  # its end is not in order
            stage.gate.pause()
            stage.insert([("run", None, '{"v":1}')])
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            async with stage.relay.standing_still() as in_flight:
                one = Selection(ids=(1,))
                touched = await stage.store.operate(verb, one, in_flight=in_flight)
                assert touched.touched == 1
            stage.insert([("run", None, '{"v":2}')])
            await stage.delivered(1, within_s=TIMEOUT_S)
            vendor.runs["run"]["metadata"] = {"v": 1}
            await stage.drained(within_s=6 * TIMEOUT_S)

        assert vendor.runs["run"]["metadata"] == {"v": 2}

    virtually(play())


def test_however_much_was_delivered_since_what_unconfirmed_is_seen(tmp_path: Path) -> None:
    many = 2_500

    async def play() -> None:
        vendor = Vendor()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            await in_doubt(stage, '{"doc":{"v":1},"z":1}', '{"z":2}')
            stage.insert([("run", None, json.dumps({"n": n})) for n in range(many)])
            await stage.delivered(many + 2, within_s=TIMEOUT_S)
            vendor.runs["run"]["metadata"]["z"] = 1
            await stage.drained(within_s=6 * TIMEOUT_S)
            assert stage.rows("SELECT n FROM counters WHERE state = 'delivered'") == [(many + 2,)]

        assert vendor.runs["run"]["metadata"] == {"doc": {"v": 1}, "z": 2, "n": many - 1}

    virtually(play())
