"""`make bench`: what syncd does, as ratios measured side by side in one run.

Options: --quick for a fifth of the work, --only NAME… for some of it, --json FILE to keep the
figures, --compare FILE to see beside each what it was.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import delivery, fold, growth, intake, latency, limit, parts, waiting
from tests.benchmarks.figure import Figure
from tests.benchmarks.record import Record
from tests.benchmarks.scale import FULL, QUICK, Scale

Measure = Callable[[Path, Scale], Iterator[Figure]]
MEASURES: dict[str, Measure] = {
    "delivery": delivery.measure,
    "parts": parts.measure,
    "intake": intake.measure,
    "waiting": waiting.measure,
    "latency": latency.measure,
    "growth": growth.measure,
    "limit": limit.measure,
    "fold": fold.measure,
}


def main() -> int:
    """Measure, print as it comes, and keep it if asked to. 1 if something could not be measured."""
    asked = _arguments()
    record = Record(asked.compare)
    for name in asked.only or MEASURES:
        with record.part(name), tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
            for figure in MEASURES[name](Path(folder), QUICK if asked.quick else FULL):
                record.add(figure)
    return record.close(asked.json, quick=asked.quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASURES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
