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
from processes import Daemon, Running, environment, start_sandbox

KILLS = int(os.environ.get("SYNCD_KILLS", "500"))
SIDE_BY_SIDE = 2  # daemons, each with a vendor of its own
RATE = 80
RUNS = 150

# Seconds from the start of the process: while it starts, while it takes in, while it sends (the
# first second belongs to whoever sent before the start).
MOMENTS_S = ((0.05, 0.5), (0.4, 1.0), (1.0, 1.9), (1.0, 1.9))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one daemon's many lives."""

    kills: int
    unanswered: int
    """Requests that were out at a kill."""
    half_taken: int
    """Kills that left a file in `taking/`."""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_kills_at_hundreds_of_points_lose_nothing_and_repeat_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        lives = [
            pool.submit(_many_lives, tmp_path / str(seed), seed, KILLS // SIDE_BY_SIDE)
            for seed in range(SIDE_BY_SIDE)
        ]
        outcomes = [life.result() for life in lives]

    kills = sum(outcome.kills for outcome in outcomes)
    assert kills >= KILLS - 1
    assert sum(outcome.unanswered for outcome in outcomes) > kills / 20
    assert sum(outcome.half_taken for outcome in outcomes) > kills / 20
    record_property("kills", kills)


def _many_lives(folder: Path, seed: int, kills: int) -> Outcome:
    chance = random.Random(seed)
    made: list[feed.Patch] = []
    files: list[str] = []
    half_taken = 0
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
            env = environment(folder, **daemon.environment)
            running = Running("daemon", ["run"], folder, env)
            # The moment of the kill is what is drawn, not a wait for something to happen.
            time.sleep(chance.uniform(*chance.choice(MOMENTS_S)))
            assert running.exit_code is None, running.log()[-3000:]
            running.kill()
            half_taken += any(path.suffix == ".jsonl" for path in _taking(daemon))
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
            unanswered = sum(request["status"] is None for request in sandbox.requests())
            done = sorted(path.name for path in (daemon.spool / "done").iterdir())
            assert done == files
    return Outcome(kills, unanswered, half_taken)


def _taking(daemon: Daemon) -> list[Path]:
    taking = daemon.spool / "taking"
    return list(taking.iterdir()) if taking.is_dir() else []
