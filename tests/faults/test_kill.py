"""kill -9 at any moment: nothing lost, nothing twice in the outbox, the right state at the end."""

import json
import random
import time
from pathlib import Path

import feed
from oracle import differing, one_by_one
from processes import Daemon, start_sandbox

KILLS = 30

# Seconds from readiness to the kill: while a file is taken in, and (the first second belongs to
# whoever sent before the start) while requests are out.
MOMENTS_S = (0.0, 0.05, 0.1, 0.2, 0.7, 0.8, 0.9)


def test_thirty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """Files are taken in and requests are in flight while the daemon is killed and started."""
    chance = random.Random(20)
    parts = {
        "a.jsonl": feed.patches(9000, 200, 1, "a"),
        "b.csv": feed.patches(4000, 200, 2, "b"),
        "c.json.gz": feed.patches(4000, 200, 3, "c"),
    }
    rows = feed.patches(600, 200, 4, "rows")
    made = [patch for part in parts.values() for patch in part] + rows
    with start_sandbox(tmp_path, "--latency", "0.02") as sandbox:
        daemon = Daemon(tmp_path, sandbox.url)
        daemon.drop("a.jsonl", feed.as_jsonl(parts["a.jsonl"]))
        daemon.drop("b.csv", feed.as_csv(parts["b.csv"]))
        with daemon:
            for kill in range(KILLS):
                daemon.start()
                if kill == KILLS // 2:
                    daemon.drop("c.json.gz", feed.gzipped(feed.as_json(parts["c.json.gz"])))
                daemon.insert(*feed.as_rows(rows[20 * kill : 20 * kill + 20]))
                # The moment of the kill is what is drawn, not a wait for something to happen.
                time.sleep(chance.choice(MOMENTS_S) + chance.uniform(0.0, 0.1))
                daemon.kill()
            daemon.start()
            for name in parts:
                waited = daemon.syncd("wait", "--batch", name, "--timeout", "60", timeout=70)
                assert waited.returncode == 0, f"{name}: {waited.stderr}\n{daemon.log()}"
            waited = daemon.syncd("wait", "--all", "--timeout", "60", timeout=70)
            assert waited.returncode == 0, waited.stderr

            asked = daemon.rows("SELECT workflow_run_id, name, metadata FROM outbox ORDER BY id")
            in_outbox = sorted(json.loads(metadata)["mark"] for _, _, metadata in asked)
            assert in_outbox == sorted(feed.marks(made))
            assert daemon.rows("SELECT DISTINCT state FROM outbox") == [("delivered",)]
            assert differing(one_by_one(asked), sandbox.runs()) == {}
            assert sandbox.stats()["max_in_flight_per_run"] == 1
            requests = sandbox.requests()
            assert any(request["status"] is None for request in requests), "no kill hit a request"
            done = sorted(path.name for path in (daemon.spool / "done").iterdir())
            assert done == sorted(parts)
