"""Options that several commands share, said once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


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
