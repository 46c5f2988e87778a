"""persist-queue's SQLite queue with acknowledgements, aiohttp, answers recorded one by one."""

import asyncio
import time

import aiohttp
import job
import persistqueue
import uvloop


async def main(work: job.Job) -> None:
    """So many workers, each takes, sends, records and acknowledges."""
    queue = persistqueue.SQLiteAckQueue(str(work.folder / "queue"), multithreading=True)
    for patch in work.patches:
        queue.put(patch)
    answers = job.Answers(work.folder)

    async def worker(session: aiohttp.ClientSession) -> None:
        while True:
            try:
                patch = queue.get(block=False)
            except persistqueue.Empty:
                return
            async with session.post(work.target(patch.run), data=patch.body) as answer:
                run = job.confirmed(await answer.read(), patch.run)
            answers.record(patch.id, patch.run, run)
            queue.ack(patch)

    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        for _ in range(work.in_flight):
            tasks.create_task(worker(session))
    job.done(began, answers.count())


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main(job.given()))
