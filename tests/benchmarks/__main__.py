"""`make bench`: what syncd does, as ratios measured side by side in one run.

Options: --quick for a fifth of the work, --only NAME… for some of it, --json FILE to keep the
figures, --compare FILE to see beside each what it was.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import delivery, fold, growth, intake, latency, limit, parts, waiting
from tests.benchmarks.figure import HEAD, Figure, line
from tests.benchmarks.machine import machine, versions
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
    before = _kept(asked.compare) if asked.compare else {}
    on, by = machine(), versions()
    print(" · ".join(f"{name} {value}" for name, value in (on | by).items()))
    print(HEAD)
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    began = time.monotonic()
    for name in asked.only or MEASURES:
        try:
            for figure in _measured(name, QUICK if asked.quick else FULL):
                figures.append(figure)
                print(line(figure, before.get(figure.name)), flush=True)
        except (AssertionError, OSError, RuntimeError, TimeoutError) as error:
            failed[name] = str(error)  # the others are worth having
            print(f"{name}: broken off: {error}", flush=True)
    took_s = time.monotonic() - began
    judged = [figure for figure in figures if figure.target]
    kept = sum(1 for figure in judged if figure.holds)
    print(f"{kept} of {len(judged)} targets hold; {took_s:.0f} s")
    if asked.json:
        record = {
            "machine": on,
            "versions": by,
            "quick": asked.quick,
            "seconds": took_s,
            "failed": failed,
            "figures": [figure.as_json() for figure in figures],
        }
        asked.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


def _measured(name: str, scale: Scale) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
        yield from MEASURES[name](Path(folder), scale)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASURES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    return parser.parse_args()


def _kept(file: Path) -> dict[str, float]:
    record: dict[str, Any] = json.loads(file.read_text())
    return {figure["name"]: figure["value"] for figure in record["figures"]}


if __name__ == "__main__":
    sys.exit(main())
