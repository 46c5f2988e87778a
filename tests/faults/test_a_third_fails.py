"""A vendor at which a third of all requests fail, in seven ways: everything arrives anyway."""

import json
from pathlib import Path

import feed
import pytest
from oracle import differing, one_by_one
from processes import start_daemon, start_sandbox

WAYS = ("500", "503", "drop", "drop_after", "garbage", "false", "wrong_id")
SPEC = ",".join(f"{way}={0.34 / len(WAYS):.4f}" for way in WAYS)


@pytest.mark.parametrize("fold", [True, False], ids=["folding", "one by one"])
def test_all_is_delivered_none_is_dead_and_the_state_is_right(tmp_path: Path, fold: bool) -> None:
    """1,500 patches over 150 runs, as files and as rows."""
    made = [feed.patches(500, 150, seed, f"s{seed}") for seed in range(3)]
    delivery = {"rate_per_s": 1000.0, "max_in_flight": 32, "fold": fold}
    with (
        start_sandbox(tmp_path, "--faults", SPEC, "--seed", "1") as sandbox,
        start_daemon(
            tmp_path, sandbox.url, delivery=delivery, retry={"base_s": 0.02, "cap_s": 0.2}
        ) as daemon,
    ):
        daemon.insert(*feed.as_rows(made[0]))
        daemon.drop("a.jsonl", feed.as_jsonl(made[1]))
        daemon.drop("b.csv.gz", feed.gzipped(feed.as_csv(made[2])))
        for name in ("a.jsonl", "b.csv.gz"):
            taken = daemon.syncd("wait", "--batch", name, "--timeout", "40", timeout=50)
            assert taken.returncode == 0, taken.stderr
        waited = daemon.syncd("wait", "--all", "--timeout", "40", timeout=50)
        assert waited.returncode == 0, f"{waited.stderr}\n{daemon.log()}"

        asked = daemon.rows("SELECT workflow_run_id, name, metadata FROM outbox ORDER BY id")
        in_outbox = sorted(json.loads(metadata)["mark"] for _, _, metadata in asked)
        assert in_outbox == sorted(feed.marks([patch for part in made for patch in part]))
        assert daemon.rows("SELECT DISTINCT state FROM outbox") == [("delivered",)]
        assert daemon.rows("SELECT DISTINCT attempts FROM outbox") == [(0,)]
        assert differing(one_by_one(asked), sandbox.runs()) == {}
        stats = sandbox.stats()
        assert stats["max_in_flight_per_run"] == 1
        assert set(stats["faults"]) == set(WAYS)
        assert 0.25 < sum(stats["faults"].values()) / stats["requests"] < 0.45
