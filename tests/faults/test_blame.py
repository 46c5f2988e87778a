"""Nobody else's fault costs a patch its place: hours of trouble on a virtual clock."""

import asyncio
import json
from pathlib import Path

import pytest
from oracle import differing, one_by_one
from stage import CAP_S, Row, Stage, Vendor, on_stage, virtually

from syncd import log
from syncd.core import pace
from syncd.core.answer import NoReply, Reply

HOUR_S = 3600.0
ASKED = "SELECT workflow_run_id, name, metadata FROM outbox WHERE state = 'delivered' ORDER BY id"
UNAUTHORIZED = Reply(401, b'{"code": "UNAUTHORIZED", "message": "Invalid token."}')
UNAVAILABLE = Reply(503, b'{"error": "Service Unavailable"}')


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Hours of planned trouble are not worth a line each."""
    log.setup("critical")


def rows(count: int, runs: int) -> list[Row]:
    return [
        (f"run_{n % runs}", None, json.dumps({"mark": n, f"k{n % 7}": n})) for n in range(count)
    ]


def proven(stage: Stage) -> None:
    """All is delivered, nothing is dead, no patch was blamed, the state is right."""
    assert stage.rows("SELECT DISTINCT state, attempts FROM outbox") == [("delivered", 0)]
    assert differing(one_by_one(stage.rows(ASKED)), stage.vendor.runs) == {}


def test_a_wrong_token_for_an_hour_is_asked_about_seldom(tmp_path: Path) -> None:
    """10,000 patches wait: under 200 requests in the hour; with the right token and a reload, all
    are delivered within a minute."""

    async def play() -> None:
        async with on_stage(tmp_path / "syncd.db", Vendor(limit=10)) as stage:
            stage.vendor.otherwise = UNAUTHORIZED
            stage.insert(rows(10_000, runs=400))
            await asyncio.sleep(HOUR_S)
            asked = len(stage.vendor.requests)
            blocked = stage.gate.blocked
            states = stage.rows("SELECT DISTINCT state, attempts FROM outbox")
            stage.vendor.otherwise = None
            stage.gate.hurry()  # what a SIGHUP does
            took = await stage.drained(within_s=60.0)

            assert blocked
            assert states == [("pending", 0)]
            assert HOUR_S / CAP_S <= asked < 200
            assert took < 60.0
            proven(stage)

    virtually(play())


def test_a_token_that_is_mended_at_the_vendor_is_noticed_by_itself(tmp_path: Path) -> None:
    async def play() -> None:
        async with on_stage(tmp_path / "syncd.db", Vendor()) as stage:
            stage.vendor.otherwise = UNAUTHORIZED
            stage.insert(rows(100, runs=10))
            await asyncio.sleep(HOUR_S)
            stage.vendor.otherwise = None
            await stage.drained(within_s=CAP_S + 10.0)

            proven(stage)

    virtually(play())


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(UNAVAILABLE, id="503"),
        pytest.param(
            NoReply("connect", "no connection", ambiguous=False), id="down", marks=pytest.mark.long
        ),
    ],
)
def test_after_an_outage_the_vendor_is_not_overrun(
    tmp_path: Path, failure: Reply | NoReply
) -> None:
    """An hour's outage with 100,000 patches waiting: hardly a request while it lasts; in the first
    minute after it under 1 % are 429s, at a vendor that allows exactly the configured rate, and
    the rate is used."""

    async def play() -> None:
        async with on_stage(tmp_path / "syncd.db", Vendor(limit=8)) as stage:
            stage.vendor.otherwise = failure
            stage.insert(rows(100_000, runs=20_000))
            await asyncio.sleep(HOUR_S)
            during = len(stage.vendor.requests)
            stage.vendor.otherwise = None
            await asyncio.sleep(CAP_S + 61.0)
            is_back = next(at for at, *_, status in stage.vendor.requests if status == 200)
            first_minute = stage.vendor.between(is_back, is_back + 60.0)

            assert during < 100
            assert is_back < HOUR_S + CAP_S + 1.0
            assert len(first_minute) > 0.9 * 60 * 8 / pace.MARGIN
            assert first_minute.count(429) < 0.01 * len(first_minute)
            assert set(first_minute) <= {200, 429}
            assert {s for (s,) in stage.rows("SELECT DISTINCT state FROM outbox")} == {
                "pending",
                "delivered",
            }

    virtually(play())


@pytest.mark.parametrize("status", [402, 403])
def test_a_blocked_account_stops_everything_with_its_own_words(tmp_path: Path, status: int) -> None:
    """USAGE_BLOCKED: no patch is blamed, the vendor's message is kept for `status`."""

    async def play() -> None:
        words = "Your workspace has reached its limit."
        body = json.dumps({"code": "USAGE_BLOCKED", "message": words, "retryable": False})
        async with on_stage(tmp_path / "syncd.db", Vendor()) as stage:
            stage.vendor.otherwise = Reply(status, body.encode())
            stage.insert(rows(50, runs=50))
            await asyncio.sleep(HOUR_S)
            told = json.loads(stage.rows("SELECT value FROM facts WHERE name = 'last_error'")[0][0])
            blocked, asked = stage.gate.blocked, len(stage.vendor.requests)
            stage.vendor.otherwise = None
            await stage.drained(within_s=CAP_S + 10.0)

            assert blocked
            assert asked < 50
            assert (told["code"], told["message"]) == ("USAGE_BLOCKED", words)
            proven(stage)

    virtually(play())


@pytest.mark.parametrize("status", [404, 410])
def test_a_run_that_is_gone_parks_only_what_waits_for_it(tmp_path: Path, status: int) -> None:
    """What comes for it later is tried for itself."""

    async def play() -> None:
        async with on_stage(tmp_path / "syncd.db", Vendor()) as stage:
            stage.vendor.refused = {"run_3": Reply(status, b'{"error": "no such run"}')}
            stage.insert(rows(100, runs=10))
            await stage.drained(within_s=60.0)
            dead = stage.rows("SELECT workflow_run_id, count(*) FROM outbox WHERE state = 'dead'")
            first = len([run for _, run, *_ in stage.vendor.requests if run == "run_3"])
            stage.vendor.refused = {}
            stage.insert([("run_3", "there again", None)])
            await stage.drained(within_s=60.0)

            assert dead == [("run_3", 10)]
            assert first == 1
            assert stage.vendor.runs["run_3"] == {"name": "there again", "metadata": {}}
            assert differing(one_by_one(stage.rows(ASKED)), stage.vendor.runs) == {}

    virtually(play())


def test_a_refused_fold_is_taken_apart_until_the_guilty_patch_stands_alone(tmp_path: Path) -> None:
    """Its members go one by one, in order; the others are delivered, and their run goes on."""

    async def play() -> None:
        async with on_stage(tmp_path / "syncd.db", Vendor()) as stage:
            stage.vendor.poison = "poison"
            made = rows(12, runs=1)
            made[7] = ("run_0", None, '{"mark": 7, "k": "poison"}')
            stage.insert(made)
            stage.insert(rows(5, runs=5)[1:])
            await stage.drained(within_s=60.0)
            bodies = [
                json.loads(body)["metadata"].get("mark")
                for _, run, body, _ in stage.vendor.requests
                if run == "run_0"
            ]

            dead = stage.rows("SELECT id, attempts, reason FROM outbox WHERE state = 'dead'")
            assert dead == [(8, 1, "INVALID_REQUEST")]
            assert bodies == [11, *range(12)]
            assert differing(one_by_one(stage.rows(ASKED)), stage.vendor.runs) == {}

    virtually(play())
