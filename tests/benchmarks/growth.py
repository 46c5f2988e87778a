"""What a patch costs with nothing behind it, and with millions delivered before."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from syncd.store.schema import open_writer
from tests.benchmarks import stand
from tests.benchmarks.delivery import Delivered, deliver
from tests.benchmarks.figure import Figure, figure, ratios
from tests.benchmarks.rows import rows
from tests.benchmarks.scale import Scale
from tests.processes import Daemon

ROUNDS = 3


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """The cost beside the cost at none, in alternating runs."""
    runs: dict[int, list[Delivered]] = {behind: [] for behind in (0, *scale.behind)}
    with stand.vendor() as vendor:
        for number in range(ROUNDS):
            for behind, done in runs.items():
                home = folder / str(behind)
                if number == 0:
                    _deliver_before(home, vendor.url, behind)
                work = rows(scale.patches, seed=number)
                done.append(deliver(home, vendor, work))
    none = [run.cpu_us for run in runs[0]]
    for behind, done in runs.items():
        name = f"growth: {behind:,} delivered before"
        if behind == 0:
            yield figure(f"{name}, cpu", "µs/patch", none)
            continue
        yield figure(
            f"{name}, cpu of that at none",
            "ratio",
            ratios([run.cpu_us for run in done], none),
            ("≤", 1.25) if behind == max(runs) else None,
        )
        yield figure(
            f"{name}, rate of that at none",
            "ratio",
            ratios([run.per_s for run in done], [run.per_s for run in runs[0]]),
        )


def _deliver_before(home: Path, url: str, count: int) -> None:
    """Write down `count` patches as delivered, each to a run of its own, as if it had happened."""
    database = Daemon(home, url).database
    with closing(open_writer(database)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        saved = triggers.fetchall()
        db.execute("BEGIN")
        for name, _ in saved:
            db.execute(f"DROP TRIGGER {name}")
        _write(db, count)
        for _, sql in saved:
            db.execute(sql)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _write(db: sqlite3.Connection, count: int) -> None:
    # Ids ascend, so that the index of snapshots is built in one pass; what is delivered later comes
    # in between them. Bodies are short: they are only ever appended to.
    db.execute(
        "CREATE TEMP TABLE done AS"
        " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
        " SELECT i, printf('workflow_run_%08x%08x', (i - 1) * 4294967296 / ?1,"
        "                  random() & 4294967295) AS run FROM n WHERE i <= ?1",
        (count,),
    )
    db.execute(
        "INSERT INTO outbox (id, workflow_run_id, name, metadata, state, created_at, settled_at)"
        " SELECT i, run, 'invoice ' || i, json_object('internal_id', 'id_' || i, 'amount', i),"
        "        'delivered', unixepoch() + 0.0, unixepoch() + 0.5 FROM done ORDER BY i"
    )
    db.execute(
        "INSERT INTO snapshots (workflow_run_id, fetched_at, status, name, metadata, patch_ids,"
        "                       last_patch_id, body)"
        " SELECT run, unixepoch() + 0.5, 'PROCESSED', 'invoice ' || i, NULL,"
        "        json_array(i), i, zeroblob(64) FROM done ORDER BY i"
    )
    db.execute("DROP TABLE done")
    for state in ("delivered", "snapshots"):
        db.execute("UPDATE counters SET n = ? WHERE state = ?", (count, state))
