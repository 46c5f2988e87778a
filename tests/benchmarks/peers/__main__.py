"""`make bench-peers`: the same work done by others, each beside a run of the daemon.

The work: N patches for N / 5 runs, each POSTed to the same stand-in, its answer recorded durably.
What a peer must queue is queued before its clock starts; it keeps no order within a run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks import stand
from tests.benchmarks.delivery import deliver
from tests.benchmarks.figure import Figure, figure, ratios
from tests.benchmarks.peers.installed import installed, versions
from tests.benchmarks.peers.peers import PEERS, Peer
from tests.benchmarks.peers.postgresql import postgresql
from tests.benchmarks.record import Record
from tests.benchmarks.rows import Row, rows, run_ids

ROUNDS = 3
PER_RUN = 5
DAEMON_PATCHES = 20_000


def main() -> int:
    """Measure each, print as it comes. 1 if one that is installed could not be measured."""
    asked = _arguments()
    record = Record(asked.compare)
    chosen = [peer for peer in PEERS if asked.only is None or peer.program in asked.only]
    for peer in chosen:
        with record.part(peer.name), tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
            for it in _measured(peer, installed(peer), Path(folder), asked.rounds):
                record.add(it)
    return record.close(asked.json)


def _measured(peer: Peer, command: list[str], folder: Path, rounds: int) -> Iterator[Figure]:
    """Rounds of the bare loop, the daemon and the peer, one after the other."""
    bare, daemon, others = [], [], []
    with stand.vendor() as vendor:
        for number in range(rounds):
            bare.append(DAEMON_PATCHES / stand.bare(vendor.url, DAEMON_PATCHES)["seconds"])
            daemon.append(deliver(folder / f"daemon{number}", vendor, _work(DAEMON_PATCHES)).per_s)
            with ExitStack() as server:
                env = dict(os.environ)
                if peer.needs_postgresql:
                    env["PEER_POSTGRESQL"] = server.enter_context(postgresql())
                others.append(_rate(peer, command, folder / str(number), vendor, env))
    yield figure(peer.name, "1/s", others, note=versions(peer))
    yield figure(f"{peer.name}: syncd beside it", "1/s", daemon)
    yield figure(
        f"{peer.name}: syncd, times as fast", "ratio", ratios(daemon, others), ("≥", peer.behind)
    )
    yield figure(
        f"{peer.name}: of the bare loop", "ratio", ratios(others, bare), note=peer.durability
    )


def _rate(
    peer: Peer, command: list[str], folder: Path, vendor: stand.Vendor, env: dict[str, str]
) -> float:
    """Patches a second of one run of a peer, which must have sent and recorded all of them."""
    folder.mkdir()
    patches = folder / "patches.jsonl"
    patches.write_text("".join(f"{json.dumps(row)}\n" for row in _work(peer.patches)))
    vendor.reset()
    done = subprocess.run(
        [*command, vendor.url, str(patches), str(folder), str(stand.IN_FLIGHT)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=stand.PATIENCE_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"ended with {done.returncode}: {said[-1] if said else 'no word'}")
    took, requests = json.loads(done.stdout.splitlines()[-1]), vendor.books()["requests"]
    if not took["recorded"] == requests == peer.patches:
        raise RuntimeError(f"sent {requests} and recorded {took['recorded']} of {peer.patches}")
    return float(peer.patches / took["seconds"])


def _work(count: int) -> list[Row]:
    return rows(count, run_ids(count // PER_RUN))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    programs = [peer.program for peer in PEERS]
    parser.add_argument("--only", nargs="+", choices=programs, metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
