"""`syncd demo`: hand in, watch, prove, show."""

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import orjson

from syncd.cli.demo.children import books, configure, daemon, sandbox
from syncd.cli.demo.patches import Source, hand_in, sources, wishes
from syncd.cli.demo.proof import prove
from syncd.cli.demo.tell import next_steps, prologue, run_in_short, told
from syncd.cli.demo.watch import DemoFigures, watch
from syncd.cli.options import Whole
from syncd.cli.signals import heeding
from syncd.cli.wire import Wire
from syncd.errors import SyncdError

SEED = 7


@click.command("demo")
@click.option(
    "--patches",
    default=600,
    show_default=True,
    metavar="N",
    type=Whole("a number of patches", 1, 100_000),
    help="How many to hand in.",
)
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path), help="Keep its folder here."
)
def demo_command(*, patches: int, keep: Path | None) -> int:
    """The whole job on a throw-away folder, with a proof at the end.

    Starts the sandbox with faults switched on and a daemon, hands in patches by JSON, JSONL and CSV
    files and by SQL, watches them go, and compares what arrived with what was asked for. Needs no
    token, no network and no configuration. Exit code 0 only if the proof holds.
    """
    # A terminal that closes, or a `kill`, ends it as ^C does: with its children.
    with heeding(signal.SIGTERM, signal.SIGHUP), _folder(keep) as folder:
        return _play(folder, sources(wishes(patches, SEED)), keep)


def _play(folder: Path, handed_in: list[Source], keep: Path | None) -> int:
    total = sum(len(source.wishes) for source in handed_in)
    example = handed_in[0].wishes[0].run
    _say(prologue(handed_in))
    with sandbox(folder) as url, daemon(folder, configure(folder, url)) as wire:
        began = time.monotonic()
        for source in handed_in:
            hand_in(source, folder / "spool", folder / "syncd.db")
        watch(total, _look(wire, url))
        took_s = time.monotonic() - began
        proof = prove(
            handed_in, folder / "syncd.db", books(url, "stats"), books(url, "state")["runs"]
        )
        snapshot = wire.ask("GET", f"/read/snapshot?run={example}")
    _say(told(proof, handed_in, took_s))
    if snapshot is not None:
        _say(run_in_short(snapshot))
    if not proof.holds:
        raise SyncdError("the proof does not hold: run it again with --keep DIR and look at DIR")
    _say(next_steps(example, keep))
    return 0


def _look(wire: Wire, url: str) -> Callable[[], DemoFigures]:
    """Asks the daemon and the sandbox how far they are."""

    def look() -> DemoFigures:
        answer = wire.ask("GET", "/status")
        if answer is None:
            raise SyncdError("the daemon has ended: run it again with --keep DIR, see daemon.log")
        outbox = orjson.loads(answer)["outbox"]
        stats = books(url, "stats")
        return DemoFigures(
            settled=outbox["delivered"] + outbox["dead"] + outbox["discarded"],
            deferred=outbox["deferred"],
            requests=stats["requests"],
            failures=sum(stats["faults"].values()),
        )

    return look


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A temporary folder, gone afterwards, or a new one to keep."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="syncd-demo-") as name:
            yield Path(name)
        return
    folder = keep.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SyncdError(f"--keep {keep}: not empty: name a new folder")
    except OSError as error:
        raise SyncdError(f"--keep {keep}: {error.strerror}: name a new folder") from error
    yield folder


def _say(lines: list[str]) -> None:
    click.echo("\n".join([*lines, ""]))
    sys.stdout.flush()
