"""`make faults`: all that tries to break the promises, at full length, and a table at the end.

Options: --seeds N and --kills N for less or more of it, --write-readme to put the table into
README.md between its markers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- make faults -->", "<!-- /make faults -->"
PLAYERS = max(1, min(4, os.cpu_count() or 1))

Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Suite:
    """What a run of pytest has come to."""

    passed: int
    failed: int
    skipped: int
    counts: Counter[str]
    """What the tests have counted, by name, sums."""


def main() -> int:
    """Run all of it, saying how it goes; 1 if anything was broken."""
    asked = _arguments()
    began = time.monotonic()
    histories = _histories(asked.seeds)
    planted = _pytest("tests/simulation", "-k", "planted")
    faults = _pytest("tests/faults", "-m", "long or not long", SYNCD_KILLS=str(asked.kills))
    took_s = time.monotonic() - began
    broken = len(histories["failed"]) + planted.failed + faults.failed
    text = _table(_rows(histories, planted, faults), took_s)
    print(f"\n{text}")
    if asked.write_readme and not broken:
        _write_readme(text)
    return 1 if broken else 0


def _histories(seeds: int) -> dict[str, Any]:
    """Play so many histories, in several processes."""
    each = -(-seeds // PLAYERS)
    command = [sys.executable, "-m", "syncd", "selftest", "--json", "--seeds", str(each), "--seed"]
    players = [
        subprocess.Popen([*command, str(n * each)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for n in range(PLAYERS)
    ]
    figures = [json.loads(player.communicate()[0]) for player in players]
    names = [name for name in figures[0] if name != "failed"]
    total: dict[str, Any] = {name: sum(figure[name] for figure in figures) for name in names}
    total["failed"] = [seed for figure in figures for seed in figure["failed"]]
    print(f"histories: {total}", flush=True)
    return total


def _pytest(*arguments: str, **variables: str) -> Suite:
    """Run tests; what each has counted comes with the results."""
    with tempfile.TemporaryDirectory(prefix="syncd-faults-") as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-o", "junit_family=xunit1"]
        command += [f"--junitxml={results}", *arguments]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)
        cases = list(ElementTree.parse(results).iter("testcase"))
    counts: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for case in cases:
        outcomes.update({"failure", "error", "skipped"} & {child.tag for child in case})
        for counted in case.iter("property"):
            counts[counted.attrib["name"]] += int(counted.attrib["value"])
    failed = outcomes["failure"] + outcomes["error"]
    skipped = outcomes["skipped"]
    return Suite(len(cases) - failed - skipped, failed, skipped, counts)


def _rows(histories: Mapping[str, Any], planted: Suite, faults: Suite) -> list[Row]:
    hours, kills = f"{histories['virtual_h']:,.0f}", f"{histories['kills']:,}"
    lost = "0 lost, 0 repeated, every state right" if not faults.failed else "see above"
    others = f"{faults.passed:,} passed, {faults.failed} failed"
    if faults.skipped:
        others += f", {faults.skipped} skipped"
    return [
        (
            "histories on a virtual clock, every fault drawn",
            f"{histories['histories']:,} ({hours} h, {kills} kills)",
            f"{len(histories['failed'])} broke a promise",
        ),
        (
            "bugs planted in the code",
            f"{planted.passed + planted.failed}",
            f"{planted.passed} caught",
        ),
        ("`kill -9` of a real daemon", f"{faults.counts['kills']:,}", lost),
        (
            "one statement, commit, rename, fsync, read or send fails, or three in a row",
            f"{faults.counts['failures']:,}",
            lost,
        ),
        (
            "tests of disks, locks, damage, vendors, strangers, parsers",
            f"{faults.passed + faults.failed + faults.skipped:,}",
            others,
        ),
    ]


def _table(rows: list[Row], took_s: float) -> str:
    day = datetime.now(UTC).date().isoformat()
    lines = ["| what | how many | outcome |", "|---|---|---|"]
    lines += [f"| {what} | {count} | {outcome} |" for what, count, outcome in rows]
    lines += ["", f"`make faults`, {day}, {took_s / 60:.0f} minutes on {os.cpu_count()} cores."]
    return "\n".join(lines)


def _write_readme(text: str) -> None:
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme}: has no {BEGIN} … {END} to put the table between")
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--write-readme", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
