"""What one piece of a file may cost: its size many times over is too much, whatever is in it."""

import subprocess
import sys

import pytest

from syncd.formats.chunk import MAX_PIECE

MOST_MIB = 60

# In a process of its own, so that nobody else's memory is counted.
MEASURE = """
import io, sys
from syncd.formats import Format, Kind, chunks

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10

file = io.BytesIO(sys.stdin.buffer.read())
before = peak()
rejects = [reject for chunk in chunks(file, Format(Kind(sys.argv[1]))) for reject in chunk.rejects]
print(len(rejects), peak() - before, rejects[0].reason)
"""


def taken(kind: str, data: bytes) -> tuple[int, int, str]:
    """How many pieces were rejected, how many MiB that took, and why the first was."""
    command = [sys.executable, "-c", MEASURE, kind]
    ended = subprocess.run(command, input=data, capture_output=True, timeout=60, check=True)
    count, mib, reason = ended.stdout.decode().split(maxsplit=2)
    return int(count), int(mib), reason.strip()


def full_of(token: bytes) -> bytes:
    """A line as long as one may be, with an array of so many tokens."""
    before, after = b'{"workflow_run_id":"a","metadata":{"a":[', b"]}}"
    tokens = (MAX_PIECE - len(before) - len(after)) // (len(token) + 1)
    return before + b",".join([token] * tokens) + after


@pytest.mark.parametrize(
    "token",
    [b'"x"', b' "x" ', b'"\\u0041"', b" 1", b'{"":0}', b"[[]]", b'"' + b"\\n" * 500_000 + b'"'],
)
def test_a_long_line_takes_little_memory_whatever_is_in_it(token: bytes) -> None:
    count, mib, reason = taken("jsonl", full_of(token) + b"\n")

    assert (count, reason) == (1, "metadata must be at most 10240 bytes")
    assert mib < MOST_MIB


@pytest.mark.parametrize(("title", "cell"), [("metadata.{:x}", "v"), ("metadata:json.{:x}", "1")])
def test_a_record_of_very_many_cells_takes_little_memory(title: str, cell: str) -> None:
    columns = 50_000
    header = ",".join(["workflow_run_id", *map(title.format, range(columns))])
    record = ",".join(["r", *[cell] * columns])

    count, mib, reason = taken("csv", f"{header}\n{record}\n".encode())

    assert (count, reason) == (1, "metadata must be at most 10240 bytes")
    assert mib < MOST_MIB
