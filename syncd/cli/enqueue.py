"""`syncd enqueue`: one patch from its arguments, or many from a file."""

import json
import re
from dataclasses import asdict

import click
import msgspec
import orjson

from syncd.cli.door import Door, door
from syncd.cli.options import config_option, json_option, text
from syncd.cli.outbox import outbox
from syncd.cli.printing import plain
from syncd.cli.wire import Down, WentAway
from syncd.core.patch import Invalid, Patch, fit
from syncd.errors import SyncdError


@click.command("enqueue")
@click.argument("run", metavar="[RUN_ID]", required=False, type=text)
@click.option("--name", type=text, help="The run's new name.")
@click.option(
    "--set",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    type=text,
    help="One key of the metadata; VALUE is JSON where it reads as JSON, else a string.",
)
@click.option("--metadata", metavar="JSON", type=text, help="An object; --set goes on top of it.")
@click.option(
    "--key", metavar="TEXT", type=text, help="A second patch with the same key is skipped."
)
@click.option("--priority", type=int, metavar="N", help="Higher goes first; 0 if left out.")
@click.option(
    "--file", "path", metavar="FILE", type=click.Path(), help="Many patches; - is standard input."
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["json", "jsonl", "csv"]),
    help="Of the file, where its name does not say.",
)
@json_option
@config_option
def enqueue_command(
    *,
    run: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    metadata: str | None,
    key: str | None,
    priority: int | None,
    path: str | None,
    format_name: str | None,
    as_json: bool,
    config_path: str | None,
) -> int:
    """Hand in one patch for RUN_ID, or a file of patches.

    Exit code 0 means that they are safely stored, not that they are delivered: see `syncd wait`.
    Works while the daemon is down.
    """
    if (run is None) == (path is None):
        raise click.UsageError("say what to hand in: RUN_ID, or --file")
    if run is not None:
        if format_name is not None:
            raise click.UsageError("--format is about --file")
        patch = _patch(run, name, _merged(metadata, pairs), key, priority or 0)
        return _enqueue_one(door(config_path), patch, as_json=as_json)
    if any(option not in (None, ()) for option in (name, pairs, metadata, key, priority)):
        raise click.UsageError("--file takes everything from the file: leave the rest out")
    from syncd.cli.enqueue_file import enqueue_file

    assert path is not None
    return enqueue_file(door(config_path), path, format_name, as_json=as_json)


def _enqueue_one(to: Door, patch: Patch, *, as_json: bool) -> int:
    try:
        with outbox(to) as box:
            taken = box.accept([patch])
    except WentAway as error:
        if isinstance(error, Down):
            raise
        told = f"{error.what}: `syncd list --run {plain(patch.workflow_run_id)}` tells if it is in"
        raise SyncdError(told) from error
    if as_json:
        click.echo(json.dumps(asdict(taken)))
    elif taken.accepted:
        click.echo(f"accepted patch {taken.first_id}")
    else:
        click.echo(f"skipped: a patch with the key {plain(patch.idempotency_key)} is already there")
    return 0


def _patch(
    run: str, name: str | None, metadata: str | None, key: str | None, priority: int
) -> Patch:
    fitted = fit(Patch(run, name, metadata, key, priority))
    if isinstance(fitted, Invalid):
        raise click.UsageError(fitted.reason)
    return fitted


def _merged(metadata: str | None, pairs: tuple[str, ...]) -> str | None:
    """`--metadata` with each `--set` on top, values as they were written."""
    if not pairs:
        return metadata
    values: dict[str, object] = {}
    if metadata is not None:
        try:
            orjson.loads(metadata)
            given = msgspec.json.decode(metadata, type=dict[str, msgspec.Raw])
        except ValueError as error:
            raise click.UsageError(f"--metadata must be a JSON object: {error}") from error
        values |= {key: orjson.Fragment(bytes(value)) for key, value in given.items()}
    seen: set[str] = set()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--set {plain(pair)}: must be KEY=VALUE")
        if key in seen:
            raise click.UsageError(f"--set {plain(key)}: is there twice: set each key once")
        seen.add(key)
        if _is_json(value):
            values[key] = orjson.Fragment(value.strip())
        else:
            if _MEANT_AS_JSON.match(value):
                note = f"syncd: --set {plain(key)}: not JSON, so it is sent as the text {value!r}"
                click.echo(note, err=True)
            values[key] = value
    return orjson.dumps(values).decode()


# An object, an array, a string with its quotes, or a number that JSON readers cannot hold.
_MEANT_AS_JSON = re.compile(r"\s*([{\[\"]|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?\s*$)")


def _is_json(value: str) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
