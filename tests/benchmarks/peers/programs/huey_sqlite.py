"""Huey on SQLite: its consumer with threads, urllib3, results in Huey's own result store."""

import time

import job
import urllib3
from huey import SqliteHuey

work = job.given()
huey = SqliteHuey(filename=str(work.folder / "huey.db"), fsync=True)
pool = urllib3.PoolManager(maxsize=work.in_flight)


@huey.task(retries=3)
def send(run: str, body: bytes) -> str:
    """One patch."""
    return job.confirmed(pool.request("POST", work.target(run), body=body).data, run)


for patch in work.patches:
    send(patch.run, patch.body)
consumer = huey.create_consumer(workers=work.in_flight, worker_type="thread", periodic=False)
began = time.monotonic()
consumer.start()
while huey.result_count() < len(work.patches):
    time.sleep(0.05)
job.done(began, huey.result_count())
consumer.stop()
