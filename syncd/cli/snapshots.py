"""`syncd show` and `syncd runs`: the WorkflowRuns as the vendor last sent them."""

import json
import shlex
import time

import click
import orjson

from syncd.cli.door import readers_door
from syncd.cli.options import config_option, json_option, limit_option, text
from syncd.cli.printing import ago, plain
from syncd.cli.rows import first_of, show
from syncd.cli.table import Column
from syncd.errors import SyncdError


@click.command("show")
@click.argument("run", metavar="RUN_ID", type=text)
@click.option("--metadata", "only_metadata", is_flag=True, help="Only the metadata, as JSON.")
@json_option
@config_option
def show_command(*, run: str, only_metadata: bool, as_json: bool, config_path: str | None) -> None:
    """The cached WorkflowRun, as the vendor sent it.

    It is the answer that confirmed the last patch of the run.
    """
    found = readers_door(config_path).one("snapshot", {"run": run})
    if found is None:
        raise SyncdError(
            f"no snapshot of {plain(run)}: nothing was delivered to it yet; look with"
            f" `syncd list --run {plain(shlex.quote(run))}`"
        )
    if only_metadata:
        click.echo(_run_in(found).get("metadata", b"null"))
        return
    if as_json:
        click.echo(found)
        return
    click.echo("\n".join(page(found, time.time())))


def page(snapshot: bytes, now: float) -> list[str]:
    """A snapshot for people: what patches are about, then the rest, numbers as they were sent."""
    known, rest = json.loads(snapshot), _run_in(snapshot)
    run = known["workflow_run"]
    for field in ("id", "name", "status"):
        rest.pop(field, None)
    metadata = rest.pop("metadata", b"null")
    confirmed = ", ".join(map(str, known["patch_ids"])) or "none"
    return [
        f"run       {plain(known['workflow_run_id'])}",
        *(f"{field:<10}{plain(run[field])}" for field in ("name", "status") if run.get(field)),
        f"fetched   {known['fetched_at']}, {ago(known['fetched_at'], now)}",
        f"patches   {confirmed}",
        "",
        f"metadata  {_pretty(metadata)}",
        "",
        f"the rest  {_pretty(_object(rest))}",
    ]


def _run_in(snapshot: bytes) -> dict[str, bytes]:
    """The fields of the cached run, each the text that the vendor sent."""
    import msgspec

    run = msgspec.json.decode(snapshot, type=dict[str, msgspec.Raw])["workflow_run"]
    fields = msgspec.json.decode(run, type=dict[str, msgspec.Raw])
    return {name: bytes(value) for name, value in fields.items()}


def _object(fields: dict[str, bytes]) -> bytes:
    return orjson.dumps({name: orjson.Fragment(value) for name, value in fields.items()})


def _pretty(value: bytes) -> str:
    import msgspec

    return msgspec.json.format(value, indent=2).decode()


@click.command("runs")
@click.option("--status", metavar="S", type=text, help="Only runs with this status of the vendor.")
@click.option(
    "--where",
    metavar="KEY=VALUE",
    type=text,
    multiple=True,
    help="Only runs with this in their metadata; several must all hold.",
)
@limit_option(None)
@json_option
@config_option
def runs_command(
    *,
    status: str | None,
    where: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Search the cached WorkflowRuns, newest first."""
    for pair in where:
        if "=" not in pair:
            raise click.UsageError(f"--where {pair}: must be KEY=VALUE")
    query = {
        "status": status,
        "where": where,
        "limit": None if limit is None else limit + 1,
    }
    found = first_of(limit, readers_door(config_path).lines("runs", query))
    now = time.time()
    show(
        found,
        _RUNS,
        lambda line: _cells(line, now),
        as_json=as_json,
        none="no cached runs" + (" like that" if status or where else ""),
    )


_RUNS = (
    Column("RUN"),
    Column("STATUS"),
    Column("NAME", least=8, spare=2),
    Column("FETCHED", spare=1),
    Column("METADATA", least=16),
)


def _cells(line: bytes, now: float) -> tuple[object, ...]:
    import msgspec

    run = json.loads(line)
    written = bytes(msgspec.json.decode(line, type=dict[str, msgspec.Raw])["metadata"])
    metadata = "" if written == b"null" else msgspec.json.format(written, indent=-1).decode()
    fetched = ago(run["fetched_at"], now)
    return run["workflow_run_id"], run["status"], run["name"], fetched, metadata
