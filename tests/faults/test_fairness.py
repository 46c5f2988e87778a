"""A run whose requests keep failing delays no other run, however many there are of them."""

import asyncio
from pathlib import Path

import pytest
from stage import CAP_S, TIMEOUT_S, Row, Vendor, on_stage, virtually

from syncd import log
from syncd.core.answer import NoReply, Reply
from syncd.core.breaker import share
from syncd.store import Selection
from syncd.verbs import operate

HOUR_S = 3600.0
FAILS = Reply(500, b'{"code": "INTERNAL_ERROR", "message": "no", "retryable": true}')
HANGS = NoReply("timeout", "no answer", ambiguous=True)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Hours of planned trouble are not worth a line each."""
    log.setup("critical")


def rows(name: str, count: int) -> list[Row]:
    return [(f"{name}_{n}", None, '{"k":1}') for n in range(count)]


def refusing(bad: int) -> Vendor:
    """A vendor that can serve no run called bad."""
    vendor = Vendor()
    vendor.refused = {run: FAILS for run, _, _ in rows("bad", bad)}
    return vendor


@pytest.mark.parametrize("bad", [1, 3, 6, 12, 40])
def test_runs_that_have_failed_for_an_hour_keep_no_new_one_waiting(
    tmp_path: Path, bad: int
) -> None:
    async def play() -> None:
        vendor = refusing(bad)
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("bad", bad))
            await asyncio.sleep(4 * HOUR_S)
            asked = len(vendor.requests)
            stage.insert(rows("good", 20))
            await stage.delivered(20, within_s=10.0)

            assert asked < 10 * bad + 4 * HOUR_S * bad / (CAP_S / 4)

    virtually(play())


@pytest.mark.parametrize("bad", [6, 20, 60, 400])
def test_runs_that_cannot_be_served_do_not_hold_up_those_behind_them(
    tmp_path: Path, bad: int
) -> None:
    """All of them are new, and first in line: to whoever sends, the service is down."""

    async def play() -> None:
        vendor = refusing(bad)
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("bad", bad) + rows("good", 20))
            await stage.delivered(20, within_s=20.0)

    virtually(play())


@pytest.mark.parametrize("bad", [20, 60, 200])
def test_runs_among_others_that_cannot_be_served_are_found_by_the_probes(
    tmp_path: Path, bad: int
) -> None:
    """As many stand before them as behind; one probe in five may be what it takes to try a part."""

    async def play() -> None:
        vendor = refusing(2 * bad)
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            those = rows("bad", 2 * bad)
            stage.insert(those[:bad] + rows("good", 20) + those[bad:])
            part = (2 * bad + 20) / 20
            took = await stage.delivered(20, 60.0 + 5 * part * CAP_S / 2, every_s=10.0)

            # What cannot be served is hardly tried more often than by probes alone.
            assert len(vendor.requests) < 20 + 60 + took / (CAP_S / 2)

    virtually(play())


def test_runs_that_failed_in_an_outage_do_not_wait_for_all_that_came_since(tmp_path: Path) -> None:
    """Those are new, and cannot be served: each would be heard before one that failed before."""

    async def play() -> None:
        vendor = refusing(100)
        vendor.otherwise = FAILS
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("old", 5))
            await asyncio.sleep(HOUR_S)
            stage.insert(rows("bad", 100))
            vendor.otherwise = None
            await stage.delivered(5, within_s=5 * CAP_S, every_s=10.0)

    virtually(play())


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (0.0, ["new_1"]),
        (share(11), [f"new_{n}" for n in range(2, 49)]),
        (1.0, ["new_49"]),
        (None, [f"first_{n}" for n in range(5)]),
    ],
)
def test_after_an_outage_they_go_in_their_order_again(
    tmp_path: Path, turn: float | None, expected: list[str]
) -> None:
    """All but the probe that has found out, wherever in line it was sent."""

    async def play() -> None:
        vendor = Vendor()
        vendor.otherwise = FAILS
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("first", 5))
            await asyncio.sleep(60.0)
            stage.insert(rows("new", 50))
            await asyncio.sleep(2.0)  # the first of them was heard by now
            while share(stage.gate.trips) != turn:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            vendor.otherwise = None
            asked = len(vendor.requests)
            await stage.delivered(55, within_s=2 * CAP_S)

            probed, *others = [run for _, run, _, _ in vendor.requests[asked:]]
            news = [run for run in others if run[0] == "n"]
            assert news == [run for run, _, _ in rows("new", 50) if run != probed]
            assert probed in expected

    virtually(play())


def test_while_the_service_is_down_new_runs_do_not_hurry_the_probe(tmp_path: Path) -> None:
    """Whoever is new is heard once; that it fails too is news, and the next ones have to wait."""

    async def play() -> None:
        vendor = Vendor()
        vendor.otherwise = FAILS
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("first", 10))
            await asyncio.sleep(HOUR_S)
            before = len(vendor.requests)
            for minute in range(60):
                stage.insert(rows(f"new_{minute}", 20))
                await asyncio.sleep(60.0)

            assert len(vendor.requests) - before < 30

    virtually(play())


def test_a_retry_while_the_service_is_down_is_one_request_and_hastens_or_delays_no_other(
    tmp_path: Path,
) -> None:
    """Though new runs wait beside the one that is asked for; and however often somebody asks."""

    async def play() -> None:
        vendor = Vendor()
        vendor.otherwise = FAILS
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("first", 10))
            await asyncio.sleep(HOUR_S)
            stage.insert(rows("new", 20))
            await asyncio.sleep(5.0)  # one of them was heard by now
            asked = len(vendor.requests)
            due_at = stage.now + (stage.gate.figures().closed_for_s or 0.0)
            assert due_at > stage.now + 60.0
            for n in range(20):
                done = await operate(
                    stage.store, stage.relay, "retry", Selection(run=f"first_{n % 10}")
                )
                await asyncio.sleep(2.0)
                assert done.asked
            probed = [run for _, run, _, _ in vendor.requests[asked:]]

            assert probed == [f"first_{n % 10}" for n in range(20)]
            assert stage.gate.figures().closed_for_s == pytest.approx(due_at - stage.now)

    virtually(play())


def test_runs_that_answer_slowly_and_badly_have_a_quarter_of_the_slots(tmp_path: Path) -> None:
    """They would else have all eight now and then: each holds one until its timeout."""

    class Slow(Vendor):
        out = 0
        most = 0

        async def update(self, run_id: str, body: bytes) -> Reply | NoReply:
            if not run_id.startswith("bad"):
                return await super().update(run_id, body)
            seen = sum(run == run_id for _, run, _, _ in self.requests) > 1
            self.out += seen
            self.most = max(self.most, self.out)
            await asyncio.sleep(TIMEOUT_S)
            self.out -= seen
            self.requests.append((asyncio.get_running_loop().time(), run_id, body, 0))
            return HANGS

    async def play() -> None:
        vendor = Slow()
        async with on_stage(tmp_path / "syncd.db", vendor) as stage:
            stage.insert(rows("bad", 30))
            await asyncio.sleep(6 * HOUR_S)
            for minute in range(1, 61):
                stage.insert(rows(f"good_{minute}", 20))
                # At first a probe may be out, which takes its time.
                await stage.delivered(20 * minute, within_s=60.0 if minute == 1 else 20.0)
                await asyncio.sleep(60.0)

            assert 1 <= vendor.most <= 2

    virtually(play())
