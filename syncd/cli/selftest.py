"""`syncd selftest`: play histories with every fault on a virtual clock, and say what broke."""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

import click

from syncd.cli.options import Whole


@click.command("selftest")
@click.option(
    "--seeds",
    default=200,
    show_default=True,
    type=Whole("a number of seeds", 1, 10_000_000),
    help="How many histories to play.",
)
@click.option("--seed", default=0, show_default=True, help="The first one's seed.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON object.")
def selftest_command(seeds: int, seed: int, as_json: bool) -> int:
    """Play histories with every fault on a virtual clock; no file or network of yours is touched.

    Kills, lost and late answers, 429s, a full disk, a stepped clock, operators: all the while and
    afterwards every promise is checked. A failing seed is printed, and fails again when named.
    """
    from syncd import log
    from syncd.selftest import drawn, play

    log.setup("critical")
    began, began_cpu = time.monotonic(), time.process_time()
    verdicts = []
    met: Counter[str] = Counter()
    for number in range(seed, seed + seeds):
        verdicts.append(play(drawn(number)))
        met += verdicts[-1].met
        if verdicts[-1].problems:
            click.echo(str(verdicts[-1]), err=True)
        elif sys.stderr.isatty():
            click.echo(f"\r  {len(verdicts)} of {seeds}", err=True, nl=False)
    if sys.stderr.isatty():
        click.echo("\r", err=True, nl=False)
    failed = [verdict.plan.seed for verdict in verdicts if verdict.problems]
    figures = {
        "histories": len(verdicts),
        "failed": failed,
        "virtual_h": round(sum(verdict.virtual_s for verdict in verdicts) / 3600, 1),
        "requests": sum(verdict.requests for verdict in verdicts),
        "delivered": sum(verdict.delivered for verdict in verdicts),
        "kills": sum(verdict.kills for verdict in verdicts),
        "faults": dict(sorted(met.items())),
        "real_s": round(time.monotonic() - began, 1),
        "cpu_s": round(time.process_time() - began_cpu, 1),
    }
    if as_json:
        click.echo(json.dumps(figures))
    else:
        for name in ("histories", "virtual_h", "requests", "delivered", "kills", "real_s"):
            click.echo(f"  {name.replace('_', ' '):<12}{figures[name]}")
        click.echo(f"  {'faults':<12}{met.total()} of {len(met)} kinds")
        click.echo(_sentence(failed))
    return 1 if failed else 0


def _sentence(failed: Sequence[int]) -> str:
    if not failed:
        return "every promise was kept"
    again = f"syncd selftest --seeds 1 --seed {failed[0]}"
    return f"{len(failed)} histories broke a promise; to see the first again: {again}"
