"""Typed settings: every key with its default, every error at once, the token out of sight.

Written by hand: importing pydantic alone takes half of the 0.3 s in which a command has to answer.
"""

from syncd.config.guess import guesses
from syncd.config.keys import Api, Config, Control, Delivery, Log, Retry, Spool, Store
from syncd.config.paths import Paths, locate
from syncd.config.read import (
    DEFAULT_FILE,
    ConfigErrorWithRest,
    NoSettings,
    PathsUnsure,
    load,
    parse,
)
from syncd.config.token import Token, read_token, unit_warnings

__all__ = [
    "DEFAULT_FILE",
    "Api",
    "Config",
    "ConfigErrorWithRest",
    "Control",
    "Delivery",
    "Log",
    "NoSettings",
    "Paths",
    "PathsUnsure",
    "Retry",
    "Spool",
    "Store",
    "Token",
    "guesses",
    "load",
    "locate",
    "parse",
    "read_token",
    "unit_warnings",
]
