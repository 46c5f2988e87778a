"""The threads that a test stops keep nothing that the one that goes on needs."""

import os
import select
import subprocess
import sys

from processes import PATIENCE_S
from threads import all_but_the_first_stopped

# The second thread begins to sleep with the lock that the first needs for its next line.
ONE_LOCK = """
import queue, threading, time
lock, works = threading.Lock(), queue.SimpleQueue()
begun = threading.Semaphore(0)

def work():
    while works.get():
        with lock:
            begun.release()
            time.sleep(0.05)

threading.Thread(target=work, daemon=True).start()
while works.put(True) is None:
    begun.acquire(timeout=0.1)
    print(flush=True)
    with lock:
        pass
    time.sleep(0.1)
"""


def test_the_first_thread_goes_on_though_the_others_share_a_lock_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", ONE_LOCK], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = process.stdout.fileno()
        os.read(lines, 1)

        with all_but_the_first_stopped(process.pid):
            went_on, _, _ = select.select([lines], [], [], PATIENCE_S)

        process.kill()
    assert went_on
