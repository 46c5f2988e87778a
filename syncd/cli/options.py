"""Options that several commands share, said once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
MOST_S = 1e9  # thirty years
MOST_ROWS = 10**15  # that many nobody has; SQLite takes no number without an end


class Whole(click.IntRange):
    """A whole number within bounds. Click calls what is none "not a valid integer range"."""

    def __init__(self, what: str, least: int, most: int | None = None) -> None:
        """`what` begins the sentence: `a patch id`."""
        super().__init__(least, most)
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r}: {self._what} is a whole number", param, ctx)
        number: int = super().convert(value, param, ctx)
        return number


PATCH_ID = Whole("a patch id", 1, 2**63 - 1)


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


def limit_option(default: int | None) -> Callable[[F], F]:
    """`--limit N`, as `limit`; None for no limit."""
    return click.option(
        "--limit",
        metavar="N",
        type=Whole("a limit", 1),
        callback=lambda _, __, limit: None if limit is None else min(limit, MOST_ROWS),
        default=default,
        show_default=default is not None,
        help="At most so many; whether there are more is told on stderr.",
    )


def json_option(command: F) -> F:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="The same as JSON.")(command)
