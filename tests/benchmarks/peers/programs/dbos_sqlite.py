"""DBOS on SQLite: a workflow for each patch, its one step sends it; both are recorded by DBOS."""

import sqlite3
import time
from contextlib import closing

import aiohttp
import job
from dbos import DBOS, DBOSConfig

work = job.given()
database = f"sqlite:///{work.folder}/dbos.db"
config: DBOSConfig = {"name": "peer", "system_database_url": database, "log_level": "ERROR"}
DBOS(config=config)
session: list[aiohttp.ClientSession] = []


@DBOS.step(retries_allowed=True)
async def send(run: str, body: str) -> str:
    """One request."""
    if not session:
        session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    async with session[0].post(work.target(run), data=body) as answer:
        return job.confirmed(await answer.read(), run)


@DBOS.workflow()
async def deliver(run: str, body: str) -> str:
    """One patch."""
    return await send(run, body)


def delivered() -> int:
    """How many workflows DBOS has recorded as done."""
    with closing(sqlite3.connect(work.folder / "dbos.db", timeout=30)) as db:
        done = "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"
        return int(db.execute(done).fetchone()[0])


DBOS.launch()
for patch in work.patches:
    DBOS.enqueue_workflow("patches", deliver, patch.run, patch.body.decode())
began = time.monotonic()
DBOS.register_queue("patches", worker_concurrency=work.in_flight, polling_interval_sec=0.1)
while delivered() < len(work.patches):
    time.sleep(0.1)
job.done(began, delivered())
DBOS.destroy()
