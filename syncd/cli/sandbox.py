"""`syncd sandbox`: a local stand-in for the vendor's API."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from syncd.cli.options import Whole, text
from syncd.errors import SyncdError

F = TypeVar("F", bound=Callable[..., Any])

# Each a switch for what the vendor's documents leave open; see SandboxSettings.
_SWITCHES: dict[str, tuple[bool | int, str]] = {
    "refuse_null": (True, "Whether a null name or metadata is refused."),
    "refuse_empty": (False, "Whether {} is refused."),
    "refuse_terminal": (False, "Whether updates of a run that has ended are refused."),
    "metadata_limit": (10_240, "Bytes of metadata."),
    "metadata_limit_on_patch": (False, "Whether that limit is the patch's, not the result's."),
    "name_limit": (0, "Characters of a name; 0 for no limit."),
    "invalid_status": (400, "Status of an INVALID_REQUEST: 400 or 422."),
    "require_version": (True, "Whether dated generations refuse requests without a version."),
    "show_name": (True, "Whether answers before 2026 carry the name."),
    "request_id_always": (False, "Whether good answers carry a request id, too."),
    "rate_per_category": (False, "Whether reads and writes have a limit each."),
}


def _switches(command: F) -> F:
    for name, (default, words) in reversed(_SWITCHES.items()):
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            flag += f"/--no-{name.replace('_', '-')}"
        command = click.option(flag, default=default, show_default=True, help=words)(command)
    return command


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, type=text, help="Where to listen.")
@click.option(
    "--port",
    type=Whole("a port", 0, 65_535),
    default=0,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--token",
    default="sandbox-token",
    show_default=True,
    type=text,
    help="The token to ask for: a made-up one. Never put a real token on a command line.",
)
@click.option(
    "--api",
    default="v1",
    show_default=True,
    type=click.Choice(["v1", "2024-12-23", "2025-04-21", "2026-02-09"]),
    help="Generation of the API.",
)
@click.option(
    "--rate", default=0, metavar="N", help="Requests in any second before a 429; 0 for no limit."
)
@click.option("--latency", default=0.0, metavar="S", help="Seconds before each answer.")
@click.option(
    "--faults",
    default="",
    metavar="SPEC",
    type=text,
    help="Probabilities of what goes wrong: 500=0.1,429=0.05,drop=0.02,hang=0.01,garbage=0.01;"
    " also drop_after, slow, false, wrong_id, zombie, any status from 400 to 599.",
)
@click.option(
    "--state", metavar="FILE", type=click.Path(path_type=Path), help="Keep the runs in this file."
)
@click.option("--seed", type=int, metavar="N", help="Draw the same faults again.")
@click.option("--strict", is_flag=True, help="Only the runs in the state file exist.")
@click.option(
    "--merge",
    default="shallow",
    show_default=True,
    type=click.Choice(["shallow", "deep"]),
    help="How metadata is merged; the vendor does not say.",
)
@click.option(
    "--null",
    default="store",
    show_default=True,
    type=click.Choice(["store", "delete"]),
    help="What a null inside metadata does; the vendor does not say.",
)
@click.option(
    "--retry-after",
    default="seconds",
    show_default=True,
    type=click.Choice(["seconds", "date", "none"]),
    help="The form of Retry-After on a 429.",
)
@_switches
def sandbox_command(*, latency: float, state: Path | None, **settings: Any) -> None:
    """A local stand-in for the vendor's API, for trying things out.

    Prints its URL on the first line. A client of v1 is given that URL + /v1.
    """
    from syncd.sandbox import SandboxSettings, serve

    try:
        chosen = SandboxSettings(latency_s=latency, state_file=state, **settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        asyncio.run(_until_stopped(serve(chosen, lambda url: print(url, flush=True))))
    except ValueError as error:
        raise SyncdError(f"sandbox: {error}") from error
    except OSError as error:
        raise SyncdError(f"sandbox: {error.filename or ''} {error.strerror or error}") from error


async def _until_stopped(serving: Coroutine[Any, Any, None]) -> None:
    program = asyncio.current_task()
    assert program is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, program.cancel)
    with suppress(asyncio.CancelledError):  # the signal's: this task is the whole program
        await serving
