"""What the demo says before and after."""

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import orjson

from syncd.cli.demo.patches import Source
from syncd.cli.demo.proof import Proof
from syncd.cli.printing import count, many

WIDTH = 80
_SHOWN_FIELDS = ("id", "name", "status", "metadata")


class _Snapshot(msgspec.Struct):
    workflow_run: dict[str, msgspec.Raw]


def prologue(handed_in: Sequence[Source]) -> list[str]:
    """What is about to happen."""
    wishes = [wish for source in handed_in for wish in source.wishes]
    runs = len({wish.run for wish in wishes})
    ways = " · ".join(f"{source.title} {count(len(source.wishes))}" for source in handed_in)
    return [
        _bold(f"{many(len(wishes), 'patch')} for {many(runs, 'WorkflowRun')}") + f"  ({ways})",
        "go through a local API that drops, delays and refuses some of the requests.",
    ]


def told(proof: Proof, handed_in: Sequence[Source], took_s: float) -> list[str]:
    """The proof, line by line."""
    failed = sum(proof.failures.values())
    kinds = ", ".join(f"{kind} {n}" for kind, n in proof.failures.items())
    order = "each once, in the order handed in" if proof.taken_once else "NOT as handed in"
    return [
        "",
        _bold("The proof"),
        _line("asked for", many(proof.asked, "patch"), True),
        _line("arrived", f"{many(proof.arrived, 'patch')}, {order}", _all_arrived(proof)),
        _line(
            "differing runs",
            f"{len(proof.differing)} of {count(proof.runs)}: as if applied one by one, in order",
            not proof.differing,
        ),
        _line(
            "differing cache",
            f"{len(proof.cached_wrong)} of {count(proof.runs)}: cached is what the API holds",
            not proof.cached_wrong,
        ),
        _line("failures", f"{count(failed)} on purpose: {kinds or 'none'}", True),
        _line(
            "requests",
            f"{count(proof.requests)} for {many(proof.asked, 'patch')}:"
            " those of one run travel together",
            True,
        ),
        _line("at once per run", f"{proof.at_once_per_run} at most", proof.at_once_per_run <= 1),
        _line(
            "over the limit",
            f"{many(proof.over_the_limit, 'request')}; all done in {took_s:.1f} s",
            proof.over_the_limit == 0,
        ),
    ]


def run_in_short(snapshot: bytes) -> list[str]:
    """A cached WorkflowRun, without the fields that patches have nothing to do with."""
    run = msgspec.json.decode(snapshot, type=_Snapshot).workflow_run
    shown = {key: orjson.Fragment(bytes(run[key])) for key in run if key in _SHOWN_FIELDS}
    text = msgspec.json.format(orjson.dumps(shown), indent=2).decode()
    return [
        _bold("One WorkflowRun, as cached from the API's answer"),
        *(f"  {line}" for line in text.splitlines()),
        f"  and {many(len(run) - len(shown), 'more field')}: see the third command below",
    ]


def next_steps(run: str, keep: Path | None) -> list[str]:
    """Three commands that work when typed as they stand, in this order."""
    syncd = _own_name()
    folder = keep or _new_folder()
    config = f"--config {shlex.quote(str(folder / 'syncd.toml'))}"
    steps = [
        (f"{syncd} status {config}", "how things stand"),
        (f"{syncd} list {config} --run {run}", "every patch of one run"),
        (f"{syncd} show {config} {run}", "the whole WorkflowRun"),
    ]
    if keep is None:
        again = f"{syncd} demo --keep {shlex.quote(str(folder))}"
        steps = [(again, "once more, and keep its folder"), *steps[1:]]
    return [
        _bold("Three commands to try next"),
        *(line for command, why in steps for line in (f"  {command}", f"    {why}")),
    ]


def _all_arrived(proof: Proof) -> bool:
    return proof.arrived == proof.asked and proof.taken_once


def _new_folder() -> Path:
    """A name below the current folder that is free."""
    names = (f"syncd-demo{number or ''}" for number in range(1000))
    return next(Path(name) for name in names if not os.path.lexists(name))


def _own_name() -> str:
    """How this program was called, as it can be called again."""
    called = sys.argv[0]
    if os.path.basename(called) == "__main__.py":
        return f"{shlex.quote(os.path.basename(sys.executable))} -m syncd"
    found = shutil.which("syncd")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "syncd"
    return shlex.quote(os.path.relpath(called))


def _line(name: str, text: str, good: bool) -> str:
    mark = click.style("ok", fg="green") if good else click.style("NO", fg="red", bold=True)
    first, *more = textwrap.wrap(text, WIDTH - 23)
    return "\n".join([f"  {mark}  {name:<16} {first}", *(" " * 23 + line for line in more)])


def _bold(text: str) -> str:
    return click.style(text, bold=True)
