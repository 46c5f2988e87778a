"""`syncd show` and `syncd runs`: the WorkflowRuns as the vendor last sent them."""

import time

import click
import orjson

from syncd.cli.door import door
from syncd.cli.options import config_option, json_option, text
from syncd.cli.printing import ago, plain, table
from syncd.errors import SyncdError


@click.command("show")
@click.argument("run", metavar="RUN_ID", type=text)
@json_option
@config_option
def show_command(*, run: str, as_json: bool, config_path: str | None) -> None:
    """The cached WorkflowRun, as the vendor sent it.

    It is the answer that confirmed the last patch of the run.
    """
    found = door(config_path).one("snapshot", {"run": run})
    if found is None:
        raise SyncdError(
            f"no snapshot of {plain(run)}: nothing was delivered to it yet; look with"
            " `syncd list --run`"
        )
    if as_json:
        click.echo(found)
        return
    click.echo("\n".join(page(found, time.time())))


def page(snapshot: bytes, now: float) -> list[str]:
    """A snapshot for people: where it comes from, then the run, numbers as they were sent."""
    import msgspec

    fields = msgspec.json.decode(snapshot, type=dict[str, msgspec.Raw])
    known = orjson.loads(snapshot)
    confirmed = ", ".join(map(str, known["patch_ids"])) or "none"
    return [
        f"run       {plain(known['workflow_run_id'])}",
        f"fetched   {known['fetched_at']}, {ago(known['fetched_at'], now)}",
        f"patches   {confirmed}",
        "",
        msgspec.json.format(bytes(fields["workflow_run"]), indent=2).decode(),
    ]


@click.command("runs")
@click.option("--status", metavar="S", type=text, help="Only runs with this status of the vendor.")
@click.option(
    "--where",
    metavar="KEY=VALUE",
    type=text,
    multiple=True,
    help="Only runs with this in their metadata; several must all hold.",
)
@json_option
@config_option
def runs_command(
    *, status: str | None, where: tuple[str, ...], as_json: bool, config_path: str | None
) -> None:
    """Search the cached WorkflowRuns, newest first."""
    for pair in where:
        if "=" not in pair:
            raise click.UsageError(f"--where {pair}: must be KEY=VALUE")
    to = door(config_path)
    query = {"status": status, "where": where}
    if as_json:
        for line in to.lines("runs", query):
            click.echo(line)
        return
    now = time.time()
    rows = [
        (
            run["workflow_run_id"],
            run["status"],
            run["name"],
            ago(run["fetched_at"], now),
            "" if run["metadata"] is None else orjson.dumps(run["metadata"]).decode(),
        )
        for run in to.rows("runs", query)
    ]
    if not rows:
        click.echo("no cached runs" + (" like that" if status or where else ""))
        return
    click.echo("\n".join(table(("RUN", "STATUS", "NAME", "FETCHED", "METADATA"), rows)))
