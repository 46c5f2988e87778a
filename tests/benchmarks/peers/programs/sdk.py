"""The vendor's own client in a loop with a semaphore, answers recorded one by one."""

import asyncio
import json
import time

import job
from extend_ai import AsyncExtend


async def main(work: job.Job) -> None:
    """A task for each patch, as many at once as the semaphore lets through."""
    client = AsyncExtend(base_url=work.url, token="benchmark")
    gate, answers = asyncio.Semaphore(work.in_flight), job.Answers(work.folder)

    async def send(patch: job.Patch) -> None:
        async with gate:
            run = await client.workflow_runs.update(patch.run, **json.loads(patch.body))
        answers.record(patch.id, patch.run, run.json())

    began = time.monotonic()
    await asyncio.gather(*(send(patch) for patch in work.patches))
    job.done(began, answers.count())


asyncio.run(main(job.given()))
