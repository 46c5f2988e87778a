"""kill -9 at hundreds of points of a daemon's life, from its first steps on. Takes minutes."""

import json
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import feed
import pytest
from oracle import differing, one_by_one
from processes import Daemon, Running, Sandbox, environment, start_sandbox

KILLS = int(os.environ.get("SYNCD_KILLS", "500"))
SIDE_BY_SIDE = 3  # daemons, each with a vendor of its own
RATE = 80
RUNS = 150

# Seconds from the start of the process: while it starts, while it takes in, while it sends (the
# first second belongs to whoever sent before the start).
MOMENTS_S = ((0.05, 0.5), (0.4, 1.0), (1.0, 1.9))
# Others are killed after so many commits at most, and as long after as a request takes.
COMMITS, INTAKE_COMMITS = 40, 9
REQUEST_S = 0.07
LATEST_S = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """What a kill has hit."""

    half_taken: bool
    """A file was on its way through `taking/`."""
    in_flight: bool
    """A request was out."""
    unsettled: bool
    """The vendor had applied something that the outbox did not know of."""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_kills_at_hundreds_of_points_lose_nothing_and_repeat_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        lives = [
            pool.submit(_many_lives, tmp_path / str(seed), seed, -(-KILLS // SIDE_BY_SIDE))
            for seed in range(SIDE_BY_SIDE)
        ]
        points = [point for life in lives for point in life.result()]

    half_taken = sum(point.half_taken for point in points)
    in_flight = sum(point.in_flight for point in points)
    unsettled = sum(point.unsettled for point in points)
    assert len(points) >= KILLS
    assert min(half_taken, in_flight, unsettled) > len(points) / 20
    record_property("kills", len(points))
    record_property("kills: half taken", half_taken)
    record_property("kills: in flight", in_flight)
    record_property("kills: unsettled", unsettled)


def _many_lives(folder: Path, seed: int, kills: int) -> list[Point]:
    chance = random.Random(seed)
    made: list[feed.Patch] = []
    files: list[str] = []
    points = []
    folder.mkdir()
    with start_sandbox(folder, "--latency", "0.05", "--rate", str(RATE)) as sandbox:
        daemon = Daemon(folder, sandbox.url, delivery={"rate_per_s": float(RATE)})
        daemon.start().kill()  # so that there is a database to insert into
        for kill in range(kills):
            if kill % 4 == 0:
                name, part = (
                    f"{kill:04}.jsonl",
                    feed.patches(6000, RUNS, chance.random(), f"f{kill}"),
                )
                daemon.drop(name, feed.as_jsonl(part))
                files.append(name)
                made += part
            rows = feed.patches(30, RUNS, chance.random(), f"r{kill}")
            daemon.insert(*feed.as_rows(rows))
            made += rows
            before = _applied(sandbox), sandbox.stats()["requests"]
            env = environment(folder, **daemon.environment)
            running = Running("daemon", ["run"], folder, env)
            _wait_for_death(running, daemon, chance, COMMITS if kill % 4 else INTAKE_COMMITS)
            assert running.exit_code is None, running.log()[-3000:]
            running.kill()
            points.append(_point(daemon, sandbox, before))
        with daemon.start():
            for name in files[-3:]:
                waited = daemon.syncd("wait", "--batch", name, "--timeout", "300", timeout=310)
                assert waited.returncode == 0, waited.stderr
            waited = daemon.syncd("wait", "--all", "--timeout", "300", timeout=310)
            assert waited.returncode == 0, waited.stderr

            asked = daemon.rows("SELECT workflow_run_id, name, metadata FROM outbox ORDER BY id")
            in_outbox = sorted(json.loads(metadata)["mark"] for _, _, metadata in asked)
            assert in_outbox == sorted(feed.marks(made))
            assert daemon.rows("SELECT DISTINCT state FROM outbox") == [("delivered",)]
            assert differing(one_by_one(asked), sandbox.runs()) == {}
            stats = sandbox.stats()
            assert stats["max_in_flight_per_run"] == 1
            assert stats["refused_429_limit"] <= stats["requests"] / 1000
            done = sorted(path.name for path in (daemon.spool / "done").iterdir())
            assert done == files
    return points


def _wait_for_death(
    running: Running, daemon: Daemon, chance: random.Random, within_commits: int
) -> None:
    """Until the moment that was drawn. That is not a wait for something to happen."""
    if chance.random() < 0.4:
        time.sleep(chance.uniform(*chance.choice(MOMENTS_S)))
        return
    log = Path(f"{daemon.database}-wal")
    commits, seen, deadline = chance.randrange(1, within_commits), None, time.monotonic() + LATEST_S
    while commits and time.monotonic() < deadline and running.exit_code is None:
        at = log.stat().st_mtime_ns if log.exists() else None
        commits -= at != seen
        seen = at
        time.sleep(0.001)
    time.sleep(chance.uniform(0.0, REQUEST_S))


def _point(daemon: Daemon, sandbox: Sandbox, before: tuple[set[str], int]) -> Point:
    applied, requests = _applied(sandbox) - before[0], sandbox.stats()["requests"] - before[1]
    lately = sandbox.requests()[-requests:] if requests else []
    taking = daemon.spool / "taking"
    pending = daemon.rows("SELECT metadata FROM outbox WHERE state = 'pending'")
    return Point(
        taking.is_dir() and any(path.suffix == ".jsonl" for path in taking.iterdir()),
        any(request["status"] is None for request in lately),
        any(json.loads(metadata)["mark"] in applied for (metadata,) in pending),
    )


def _applied(sandbox: Sandbox) -> set[str]:
    """The marks of the newest patches at the vendor."""
    return {str(run["metadata"].get("mark")) for run in sandbox.runs().values()}
