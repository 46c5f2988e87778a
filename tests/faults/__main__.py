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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- make faults -->", "<!-- /make faults -->"
PLAYERS = max(1, min(4, os.cpu_count() or 1))

Row = tuple[str, str, str]


# What a test belongs to, by the file it is in; all others are tests of everything else.
KILLS, NTH, PLANTED, OTHERS = "test_many_kills", "test_nth_failure", "test_planted", ""


@dataclass(slots=True)
class Suite:
    """What the tests of one kind have come to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """What the tests have counted, by name, sums."""

    @property
    def outcome(self) -> str:
        """In a few words."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed:,} passed, {self.failed} failed{skipped}"


def main() -> int:
    """Run all of it, saying how it goes; 1 if anything was broken."""
    asked = _arguments()
    began = time.monotonic()
    histories = _histories(asked.seeds)
    suites = _tests(asked.kills)
    took_s = time.monotonic() - began
    broken = len(histories["failed"]) + sum(suite.failed for suite in suites.values())
    text = _table(_rows(histories, suites), took_s)
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
    counted = ("histories", "virtual_h", "requests", "delivered", "kills", "cpu_s")
    total: dict[str, Any] = {name: sum(figure[name] for figure in figures) for name in counted}
    total["failed"] = [seed for figure in figures for seed in figure["failed"]]
    faults: Counter[str] = Counter()
    for figure in figures:
        faults.update(figure["faults"])
    print(f"histories: {total}\nwhat happened in them: {dict(sorted(faults.items()))}", flush=True)
    return total | {"faults": faults.total()}


def _tests(kills: int) -> dict[str, Suite]:
    """Run the tests, two at a time; what each has counted comes with the results."""
    with tempfile.TemporaryDirectory(prefix="syncd-faults-") as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={results}"]
        # The order as it is: the longest comes early.
        command += ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"]
        command += ["tests/faults", "tests/simulation", "-m", "not benchmark and not background"]
        environment = {**os.environ, "SYNCD_KILLS": str(kills)}
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        cases = list(ElementTree.parse(results).iter("testcase"))
    suites = {kind: Suite() for kind in (KILLS, NTH, PLANTED, OTHERS)}
    for case in cases:
        file = case.attrib["classname"].rpartition(".")[2]
        suite = suites[file if file in suites else OTHERS]
        ends = {child.tag for child in case}
        if ends & {"failure", "error"}:
            suite.failed += 1
        elif "skipped" in ends:
            suite.skipped += 1
        else:
            suite.passed += 1
        for counted in case.iter("property"):
            suite.counts[counted.attrib["name"]] += int(counted.attrib["value"])
    ran_all = all(suite.passed for suite in suites.values())
    if not ran_all or (ended.returncode and not any(suite.failed for suite in suites.values())):
        raise SystemExit(f"pytest broke off with exit code {ended.returncode}: nothing is proved")
    return suites


def _rows(histories: Mapping[str, Any], suites: Mapping[str, Suite]) -> list[Row]:
    kills, nth, planted = suites[KILLS], suites[NTH], suites[PLANTED]
    a_minute = histories["virtual_h"] / (histories["cpu_s"] / 60)
    return [
        (
            "histories on a virtual clock, with every fault",
            f"{histories['histories']:,}: {histories['virtual_h']:,.0f} hours,"
            f" {histories['kills']:,} kills, {histories['faults']:,} faults,"
            f" {histories['delivered']:,} patches delivered;"
            f" {a_minute:,.0f} hours a minute of one core",
            f"{len(histories['failed'])} broke a promise",
        ),
        (
            "bugs planted in the code, for the histories to find",
            f"{planted.counts['planted']}",
            f"{planted.counts['caught']} caught",
        ),
        (
            "`kill -9` of a real daemon",
            f"{kills.counts['kills']:,}: {kills.counts['kills: half taken']:,} with a file half"
            f" taken, {kills.counts['kills: in flight']:,} with requests out,"
            f" {kills.counts['kills: unsettled']:,} with answers not on disk yet",
            "0 lost, 0 repeated, every state right" if not kills.failed else "broke a promise",
        ),
        (
            "each statement, commit, rename, fsync, read and send of two scripted histories of 200"
            " patches fails, alone and with the two after it",
            f"{nth.counts['failures']:,}",
            "0 lost, 0 repeated, every state right" if not nth.failed else "broke a promise",
        ),
        (
            "tests of blame, disks, locks, damage, zombies, hostile vendors, strangers, parsers",
            f"{suites[OTHERS].passed + suites[OTHERS].failed + suites[OTHERS].skipped:,}",
            suites[OTHERS].outcome,
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
    parser.add_argument("--seeds", type=int, default=6_000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--write-readme", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
