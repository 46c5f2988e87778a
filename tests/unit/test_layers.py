"""Who may import whom: one table, held against the code."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "syncd"

PURE = {"core", "errors"}
ADAPTERS = {
    *("api", "clock", "gate", "listener", "notify", "log", "metrics", "process"),
    *("spool", "formats", "store"),
}
SERVICES = {
    *("intake", "relay", "attempt", "fence", "lanes", "settler"),
    *("verbs", "readers", "status", "control", "upkeep", "settings"),
}

# What stands at the top of syncd/, and what each may import from there besides itself. An arrow
# goes down or not at all: cli, daemon, services, adapters, core. `sandbox` is the vendor's side and
# knows nothing of ours. `attempt`, `lanes` and `settler` are the relay's own; `verbs` and `fence`
# ask it to stand still. `syncd` itself (the version) is open to everyone but core.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"daemon", "sandbox", "selftest", "config", *SERVICES, *ADAPTERS, *PURE},
    "daemon": {"config", *SERVICES, *ADAPTERS, *PURE},
    "intake": {"spool", "formats", "store", *PURE},
    "relay": {"attempt", "lanes", "gate", "store", *PURE},
    "attempt": {"lanes", "settler", "gate", "store", *PURE},
    "fence": {"relay", "api", "gate", "store", *PURE},
    "lanes": {"store", *PURE},
    "settler": {"store", *PURE},
    "verbs": {"relay", "store", *PURE},
    "readers": {"relay", "store", *PURE},
    "status": {"relay", "gate", "spool", "store", *PURE},
    "settings": {"config", "relay", "lanes", "gate", "log", "store", *PURE},
    "upkeep": {"clock", "store", *PURE},
    "control": {"verbs", "readers", "listener", "relay", "gate", "store", *PURE},
    **dict.fromkeys(ADAPTERS, PURE),
    "config": PURE,
    "sandbox": {"core"},
    "selftest": {*SERVICES, *ADAPTERS, *PURE},
    "core": set(),
    "errors": set(),
}

# Nothing here can wait, look at a clock, throw dice or touch the world.
PURE_MODULES = {
    *(
        "abc",
        "base64",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "decimal",
        "difflib",
        "enum",
    ),
    *("fractions", "functools", "heapq", "itertools", "json", "math", "msgspec", "numbers"),
    *("operator", "orjson", "re", "statistics", "string", "struct", "textwrap", "types", "typing"),
    *("datetime", "email.utils", "hashlib", "urllib.parse"),
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "localtime", "formatdate"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package stands for its __init__."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = ["syncd", *file.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(source: str, known: set[str]) -> Iterator[str]:
    """Every module a source names, wherever the statement stands; by the longest known name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in known else node.module


def part_of(module: str) -> str:
    """The entry of the table: `store` for syncd.store.read, `__init__` for syncd."""
    return [*module.split("."), "__init__"][1]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "syncd"


def test_every_part_stands_in_the_table() -> None:
    unknown = {part_of(module) for module in MODULES} - set(MAY_IMPORT)

    assert not unknown, f"add to the table MAY_IMPORT: {unknown}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    part = part_of(module)
    allowed = MAY_IMPORT[part] | {part}
    if part != "core":
        allowed |= {"__init__"}

    ours = {name for name in imports(MODULES[module].read_text(), set(MODULES)) if is_ours(name)}

    wrong = {name for name in ours if part_of(name) not in allowed}
    assert not wrong, f"{module} may not import {wrong}"


def test_there_is_no_circle_of_imports() -> None:
    graph = {
        module: {
            name
            for name in imports(file.read_text(), set(MODULES))
            if is_ours(name) and name != module
        }
        for module, file in MODULES.items()
    }

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


CORE = sorted(module for module in MODULES if part_of(module) == "core")


@pytest.mark.parametrize("module", CORE)
def test_core_imports_nothing_that_can_touch_the_world(module: str) -> None:
    names = set(imports(MODULES[module].read_text(), set(MODULES)))

    wrong = {
        name
        for name in names
        if not is_ours(name) and not {name, name.split(".")[0]} & PURE_MODULES
    }
    assert not wrong, f"{module} is pure and may not import {wrong}"


@pytest.mark.parametrize("module", CORE)
def test_core_neither_waits_nor_asks_the_clock_nor_prints(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        where = f"{module}, line {getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), where
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in IMPURE_CALLS, f"{where}: {name}"


# The reading itself


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import syncd.store.read as r", "syncd.store.read"),
        ("from syncd.store import read", "syncd.store.read"),
        ("from syncd.store import Store", "syncd.store"),
        ("from syncd import store", "syncd.store"),
        ("from syncd import __version__", "syncd"),
        ("def late():\n    from syncd.store import read", "syncd.store.read"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import syncd.store",
            "syncd.store",
        ),
    ],
)
def test_an_import_counts_wherever_it_stands(source: str, named: str) -> None:
    found = set(imports(source, {"syncd", "syncd.store", "syncd.store.read"}))

    assert found - {"typing"} == {named}


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="line 1: a relative import"):
        list(imports("from . import store", set()))
