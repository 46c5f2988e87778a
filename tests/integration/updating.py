"""Updates and retrievals of runs at a sandbox."""

import json
from urllib.parse import quote

import aiohttp
from yarl import URL

RUN = "workflow_run_1234"
GONE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def post(box, run_id, body, prefix="", **headers):
    """Status, headers and body text of an update."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{box.url}{prefix}/workflow_runs/{quote(run_id, safe='')}"
    async with box.session.post(
        URL(url, encoded=True), data=data, headers={**box.headers, **headers}
    ) as reply:
        return reply.status, reply.headers, await reply.text()


async def get(box, run_id, prefix="", **headers):
    """Status, headers and body text of a retrieval."""
    url = f"{box.url}{prefix}/workflow_runs/{quote(run_id, safe='')}"
    async with box.session.get(URL(url, encoded=True), headers={**box.headers, **headers}) as reply:
        return reply.status, reply.headers, await reply.text()


def bare(text):
    """The WorkflowRun of an answer, wrapped or not."""
    body = json.loads(text)
    return body.get("workflowRun", body)
