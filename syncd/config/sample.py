"""The sample file, made from the table: `python -m syncd.config.sample >config/syncd.toml`.

Arguments such as `store.path=/var/lib/syncd/syncd.db` set keys in it, as for an installed service.
"""

import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from syncd.config.keys import KEYS, SECTIONS
from syncd.config.rules import as_toml


def sample(given: Mapping[str, object] = MappingProxyType({})) -> str:
    """Every section, every key: `key = value` for those given, else `#key = default`."""
    sections = (line for name in SECTIONS for line in _section(name, given))
    return "\n".join([*_head(), *sections]) + "\n"


def _head() -> Iterator[str]:
    yield "# Settings of syncd. A line of the form #key = value shows a default: take the # away to"
    yield "# change it. A variable SYNCD_<SECTION>__<KEY> in the environment overrides the file."
    yield "# `syncd check` says whether all of it is right."


def _section(name: str, given: Mapping[str, object]) -> Iterator[str]:
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
        if str(key) in given:
            yield f"{key.name} = {as_toml(given[str(key)])}"
        else:
            yield f"#{key.name} = {as_toml(key.default)}"


if __name__ == "__main__":
    sys.stdout.write(sample(dict(argument.split("=", 1) for argument in sys.argv[1:])))
