"""Requests that folding saves, where several patches of a run wait together."""

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.rows import rows, run_ids
from tests.benchmarks.scale import Scale

PATCHES_A_RUN = (1, 2, 5, 20)
PATCHES = 2_000


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """The share of requests that need not be sent."""
    del scale  # it is quick as it is
    with stand.vendor() as vendor:
        for each in PATCHES_A_RUN:
            vendor.reset()
            work = rows(PATCHES, run_ids(PATCHES // each))
            with stand.daemon(folder / str(each), vendor.url, fold=True) as daemon:
                stand.insert(daemon.database, work)
                stand.wait_for(daemon.database, "delivered", PATCHES)
            yield figure(
                f"fold: requests saved, {each} patches a run",
                "ratio",
                1 - vendor.books()["requests"] / PATCHES,
            )
