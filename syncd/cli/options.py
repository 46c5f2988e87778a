"""Options that several commands share, said once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
MOST_S = 1e9  # thirty years


PATCH_ID = click.IntRange(1, 2**63 - 1)


def seconds(value: str) -> float:
    """A span that has an end."""
    try:
        number = float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number of seconds") from error
    if not 0 <= number <= MOST_S:
        raise click.BadParameter(f"{value!r} is not a number of seconds from 0 to {MOST_S:g}")
    return number


def text(value: str) -> str:
    """Text as JSON and SQLite know it. What is not UTF-8 arrives as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("it is not UTF-8") from error
    return value


def config_option(command: F) -> F:
    """`--config FILE`, as `config_path`; may also stand before the command's name."""
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        callback=lambda context, _, path: path or context.find_object(str),
        help="Settings; else $SYNCD_CONFIG, else /etc/syncd/syncd.toml.",
    )(command)


def json_option(command: F) -> F:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="The same as JSON.")(command)
