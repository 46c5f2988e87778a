"""Puts what the last `make bench`, `make bench-peers` and `make soak` have found into README.md.

`python -m tests.benchmarks.readme`: the figures that have a target and those named in ALSO go
between the README's markers, so that no number there is typed by hand.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.stand import ROOT

README = ROOT / "README.md"
RECORDS = {
    "make bench": ROOT / "build" / "bench.json",
    "make bench-peers": ROOT / "build" / "bench-peers.json",
    "make soak": ROOT / "build" / "soak" / "soak.json",
}
BEGIN, END = "<!-- make bench -->", "<!-- /make bench -->"
ALSO = (
    "delivery: bare loop",
    "delivery: end to end and durable",
    "cpu: daemon",
    "parts: ",
    "fold: ",
    "soak: ",
)


def main() -> None:
    """Write the table. A record that is not there is left out; so is one of a quick look."""
    records = {
        command: json.loads(file.read_text()) for command, file in RECORDS.items() if file.exists()
    }
    head, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README}: has no {BEGIN} … {END} to put the table between")
    table = "\n".join(_lines(records))
    README.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _lines(records: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| figure | median | spread | target | |"
    yield "|---|---|---|---|---|"
    for record in records.values():
        if record.get("quick"):
            continue
        for it in record["figures"]:
            if it["target"] or it["name"].startswith(ALSO):
                yield f"| {it['name']} | {_median(it)} | {_spread(it)} | {_target(it)} |"
        for name, reason in (record["missing"] | record["failed"]).items():
            yield f"| {name} | not measured: {reason} | | | |"
    for command, record in records.items():
        on, by = record["machine"], record["versions"]
        yield ""
        took = f", {record['minutes']:g} minutes" if "minutes" in record else ""
        yield (
            f"`{command}`{took}, {record['day']}: {on['processor']}, {on['cores']} cores, load"
            f" {on['load'].split()[0]}, Python {by['python']}, SQLite {by['sqlite']}, {by['loop']}."
        )


def _median(it: dict[str, Any]) -> str:
    return f"{_number(it['value'])} {it['unit']}".strip()


def _spread(it: dict[str, Any]) -> str:
    low, high = min(it["samples"]), max(it["samples"])
    return f"{_number(low)} … {_number(high)}" if len(it["samples"]) > 1 else ""


def _target(it: dict[str, Any]) -> str:
    return (
        f"{it['target']} | {'holds' if it['holds'] else 'does not hold'}" if it["target"] else "|"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == 0 or abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
