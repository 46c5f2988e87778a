"""The sample file, made from the table: `python -m syncd.config.sample >config/syncd.toml`."""

import sys
from collections.abc import Iterator

from syncd.config.keys import KEYS, SECTIONS
from syncd.config.rules import as_toml


def sample() -> str:
    """Every section, every key with its default. A comment of `#key = value` is a default."""
    return "\n".join([*_head(), *(line for name in SECTIONS for line in _section(name))]) + "\n"


def _head() -> Iterator[str]:
    yield "# Settings of syncd. A line of the form #key = value shows a default: take the # away to"
    yield "# change it. A variable SYNCD_<SECTION>__<KEY> in the environment overrides the file."
    yield "# `syncd check` says whether all of it is right."


def _section(name: str) -> Iterator[str]:
    summary = (SECTIONS[name].__doc__ or "").partition("\n")[0]
    yield ""
    yield f"# {summary}"
    yield f"[{name}]"
    for key in KEYS:
        if key.section != name:
            continue
        yield ""
        yield from (f"# {line}" for line in key.note)
        yield f"# Allowed: {key.rule.allowed}."
        yield f"#{key.name} = {as_toml(key.default)}"


if __name__ == "__main__":
    sys.stdout.write(sample())
