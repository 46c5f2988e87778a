"""A bare loop: posts, reads and parses, writes nothing down. What everything else is held against.

`python -m tests.benchmarks.bare URL COUNT IN_FLIGHT` prints `{"seconds", "cpu_s", "waited_s"}`.
Its session is tuned as the daemon's is: no limit of its own, no cookies, headers once, an encoded
URL.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator

import aiohttp
import orjson
from yarl import URL

from tests.benchmarks import loop, machine, stand
from tests.benchmarks.rows import Row, body_of, rows


async def main(url: str, count: int, in_flight: int) -> None:
    """Post `count` patches to as many runs, and say how long it took."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={**headers, "Authorization": "Bearer benchmark"},
    ) as session:
        await _post(session, url, rows(stand.WARM_UP), in_flight)
        work = rows(count)
        began, before = time.monotonic(), machine.used(os.getpid())
        await _post(session, url, work, in_flight)
        seconds, used = time.monotonic() - began, machine.used(os.getpid()).since(before)
    took = {"seconds": seconds, "cpu_s": used.whole, "waited_s": used.waited}
    print(orjson.dumps(took).decode())


async def _post(session: aiohttp.ClientSession, url: str, work: list[Row], in_flight: int) -> None:
    left = iter(work)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(_worker(session, url, left))


async def _worker(session: aiohttp.ClientSession, url: str, left: Iterator[Row]) -> None:
    for row in left:
        target = URL(f"{url}/workflow_runs/{row[0]}", encoded=True)
        async with session.post(target, data=body_of(row)) as answer:
            run = orjson.loads(await answer.read())["workflowRun"]
        if run["id"] != row[0]:
            raise SystemExit(f"the answer to {row[0]} is about {run['id']}")


if __name__ == "__main__":
    loop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
