"""How much of the vendor's limit is used, where the vendor judges every sliding second."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks import stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.rows import rows
from tests.benchmarks.scale import Scale

LATENCY_S = 0.02
CONNECT_S = 0.15  # a handshake over the sea
PLAIN = [(limit, 0.0) for limit in (10, 25, 75)]
FAR = [(limit, CONNECT_S) for limit in (10, 75)]
TOGETHER = ((*PLAIN, *FAR), ((1_000, 0.0),))  # slow ones take nothing from each other
BEGIN_S = 2.0  # the window opens step by step: what counts is what comes then


@dataclass(frozen=True, slots=True)
class Judged:
    """What a vendor saw of a daemon that was told its limit."""

    limit: int
    connect_s: float
    share: float
    """Of the limit, once under way."""
    worst: float
    """The fullest sliding second, as a share of the limit."""
    refused: int


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Share, fullest second and refusals, at each rate."""
    for cases in TOGETHER:
        with ThreadPoolExecutor(len(cases)) as pool:
            for judged in pool.map(
                partial(_judge, folder, scale.limit_s), *zip(*cases, strict=True)
            ):
                far = f", connecting takes {judged.connect_s:g} s" if judged.connect_s else ""
                name = f"limit: {judged.limit:,}/s{far}"
                fullest = f"fullest second {judged.worst:.3f}"
                yield figure(f"{name}, used", "ratio", judged.share, ("≥", 0.98), fullest)
                yield figure(f"{name}, refused", "answers", judged.refused, ("=", 0))


def _judge(folder: Path, seconds: float, limit: int, connect_s: float) -> Judged:
    work = rows(round(limit * (seconds + BEGIN_S)), seed=limit)
    home = folder / f"{limit}-{connect_s}"
    home.mkdir()
    tls = stand.self_signed(home) if connect_s else None
    asked = {"limit": limit, "latency_s": LATENCY_S, "connect_s": connect_s, "trace": 1}
    with (
        stand.vendor(tls, **asked) as vendor,
        stand.daemon(home, vendor.url, trusting=tls, rate_per_s=float(limit)) as daemon,
    ):
        stand.insert(daemon.database, work)
        stand.wait_for(daemon.database, "delivered", len(work))
        books = vendor.books()
    arrivals = sorted(books["arrivals"].values())
    under_way = [at for at in arrivals if at >= arrivals[0] + BEGIN_S]
    share = (len(under_way) - 1) / (under_way[-1] - under_way[0]) / limit
    return Judged(limit, connect_s, share, _fullest(arrivals) / limit, books["refused"])


def _fullest(arrivals: list[float]) -> int:
    """The most arrivals in any sliding second."""
    most, oldest = 0, 0
    for newest, at in zip(itertools.count(), arrivals):
        while arrivals[oldest] <= at - 1.0:
            oldest += 1
        most = max(most, newest - oldest + 1)
    return most
