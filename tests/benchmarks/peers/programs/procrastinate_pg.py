"""Procrastinate on PostgreSQL: its worker, aiohttp, answers in a table of the same database."""

import asyncio
import os
import time

import aiohttp
import job
import uvloop
from procrastinate import App, PsycopgConnector

work = job.given()
connector = PsycopgConnector(conninfo=os.environ["PEER_POSTGRESQL"], max_size=20)
app = App(connector=connector)
session: list[aiohttp.ClientSession] = []


@app.task(name="send", retry=3)
async def send(patch: int, run: str, body: str) -> None:
    """One patch."""
    async with session[0].post(work.target(run), data=body) as answer:
        found = job.confirmed(await answer.read(), run)
    record = "INSERT INTO answers (patch, run, body) VALUES (%(patch)s, %(run)s, %(body)s)"
    await connector.execute_query_async(record, patch=patch, run=run, body=found)


async def main() -> None:
    """Queue, then one worker with so many jobs at once, until it has caught up."""
    async with app.open_async(), aiohttp.ClientSession() as opened:
        session.append(opened)
        await app.schema_manager.apply_schema_async()
        await connector.execute_query_async(
            "CREATE TABLE answers (patch integer PRIMARY KEY, run text, body text)"
        )
        await send.batch_defer_async(
            *(
                {"patch": patch.id, "run": patch.run, "body": patch.body.decode()}
                for patch in work.patches
            )
        )
        began = time.monotonic()
        await app.run_worker_async(concurrency=work.in_flight, wait=False)
        row = await connector.execute_query_one_async("SELECT count(*) AS n FROM answers")
        job.done(began, row["n"])


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
