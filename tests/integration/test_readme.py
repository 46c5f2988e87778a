"""README.md is true: its examples are run, in order, as they stand, and print what it says."""

import csv
import json
import os
import re
import shlex
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import click
import pytest
from oracle import differing, one_by_one
from reading import EXAMPLES, FILES, PROSE, README, ROOT, RUN, Block, Example, Reader

from syncd.cli import COMMANDS, INTERRUPTED, group
from syncd.cli.patches import STATES
from syncd.config.keys import KEYS
from syncd.config.token import VARIABLE as TOKEN_VARIABLE
from syncd.core.outcome import Blame
from syncd.metrics import STATES as DAEMON_STATES


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with ExitStack() as stack:
        yield Reader(tmp_path_factory.mktemp("readme"), stack).read()


# What differs from one reading to the next. All the rest must be as it is printed.
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<time>"),
    (r"\d+(\.\d)? s\b", "<span>"),
    (r"\d+\.\d (requests|patches)/s", r"<rate> \1/s"),
    (r"\bpid \d+", "pid <pid>"),
    (r"\d+ of (\d+) at once", r"<window> of \1 at once"),
    (r"\breq_\w+", "req_<id>"),
    (r"[ \t]+", " "),  # the width of a column depends on what stands in it
    (r" $", ""),
)


def steady(text: str) -> str:
    for volatile, instead in VOLATILE:
        text = re.sub(volatile, instead, text, flags=re.MULTILINE)
    return text


def pattern(shown: str) -> str:
    """What output must look like: `…` is anything; alone on its line, any number of lines."""
    lines = steady(shown).splitlines(keepends=True)
    return "".join(
        "(?:.*\n)*" if line == "…\n" else ".*".join(map(re.escape, line.split("…")))
        for line in lines
    )


# The examples


@pytest.mark.parametrize("example", RUN, ids=str)
def test_an_example_prints_what_is_shown(reader: Reader, example: Example) -> None:
    printed = reader.printed[example.line]

    assert re.fullmatch(pattern(example.prints), steady(printed)), f"{example}\n{printed}"


def test_the_demo_prints_what_is_shown(reader: Reader) -> None:
    """With fewer patches: every number and name of a path may differ, the words may not."""
    (example,) = (each for each in EXAMPLES if each.command == "make demo")
    printed = reader.demo()

    shown = DIGITS.sub("0", re.sub(r"on purpose: .*", "on purpose: …", example.prints))
    assert re.fullmatch(pattern(shown), steady(DIGITS.sub("0", printed))), printed


DIGITS = re.compile(r"[\d,]*\d")


def test_what_the_shown_files_hold_is_handed_in(reader: Reader) -> None:
    handed_in = {(run, name, plain(metadata)) for run, name, metadata in reader.outbox(PATCH)}

    for block in FILES:
        for run, name, metadata in patches_in(block):
            assert (run, name, plain(metadata)) in handed_in, f"{block.file}: {run}"


def test_what_is_handed_in_arrives(reader: Reader) -> None:
    rows = reader.outbox(f"{PATCH}, state")

    assert reader.sandbox is not None
    assert {row[3] for row in rows} == {"delivered", "dead"}
    assert len({row[0] for row in rows}) > 8
    delivered = [row[:3] for row in rows if row[3] == "delivered"]
    assert differing(one_by_one(delivered), reader.sandbox.runs()) == {}


PATCH = "workflow_run_id, name, metadata"


def plain(metadata: str | None) -> str | None:
    """The same for the same values, whatever the layout."""
    return None if metadata is None else json.dumps(json.loads(metadata), sort_keys=True)


def patches_in(block: Block) -> Iterator[tuple[str, str | None, str | None]]:
    """The patches of a JSON, JSON lines or CSV example, read without any code of ours."""
    match block.language:
        case "json":
            found = json.loads(block.text)
        case "jsonl":
            found = [json.loads(line) for line in block.text.splitlines()]
        case "csv":
            found = list(map(from_csv, csv.DictReader(block.text.splitlines())))
        case _:
            found = []
    for patch in found:
        if "metdata" not in patch:  # the one that is there to be rejected
            metadata = patch.get("metadata")
            yield (
                patch["workflow_run_id"],
                patch.get("name"),
                None if metadata is None else json.dumps(metadata),
            )


def from_csv(row: dict[str, str]) -> dict[str, Any]:
    patch: dict[str, Any] = {"workflow_run_id": row["workflow_run_id"], "metadata": {}}
    for column, cell in row.items():
        if cell and column.startswith("metadata."):
            patch["metadata"][column.removeprefix("metadata.")] = cell
        elif cell and column.startswith("metadata:json."):
            patch["metadata"][column.removeprefix("metadata:json.")] = json.loads(cell)
        elif cell:
            patch[column] = cell
    return patch


def test_a_file_is_named_before_it_is_shown() -> None:
    for block in FILES:
        before = README[: README.index(block.text)]
        assert f"`{block.file}`" in before, block.file


def test_files_have_the_modes_shown(reader: Reader) -> None:
    umask = os.umask(0)
    os.umask(umask)

    rows = re.findall(r"^\| (`.*?) \| (0\d{3})(, less your umask)? \|", README, re.MULTILINE)

    assert len(rows) > 5
    for cell, mode, less_umask in rows:
        for name in re.findall(r"`([^`-]\S*)`", cell):
            path = reader.state / name.removeprefix("~/.local/state/syncd/")
            expected = int(mode, 8) & ~umask if less_umask else int(mode, 8)
            assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(expected), name


# What is named


def test_every_command_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `syncd (\w+)", PROSE, re.MULTILINE)

    assert [command for command, _ in rows] == [*COMMANDS]
    assert all(command == shown for command, shown in rows)


@pytest.mark.parametrize(
    "line",
    sorted(
        {example.command for example in RUN if example.command.startswith("syncd ")}
        | {code for code in re.findall(r"`(syncd [^`\n]+)`", PROSE) if code.count(" ") > 1}
        | {f"syncd {name} --help" for name in re.findall(r"`syncd (\w+)`", PROSE)}
    ),
)
def test_a_command_that_is_shown_is_understood(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    command = group.get_command(click.Context(group), name)

    assert command is not None, f"there is no syncd {name}"
    # It raises where an option or an argument is not known.
    command.make_context(name, arguments, resilient_parsing=arguments == ["--help"]).close()


def test_the_exit_codes_are_those_of_the_command() -> None:
    shown, documented = (
        {int(code) for code in re.findall(r"\b(\d+) [a-z]", after_the_word("Exit codes:", text))}
        for text in (PROSE, group.help or "")
    )

    assert shown == documented
    assert shown > {INTERRUPTED, 128 + signal.SIGTERM}


def after_the_word(word: str, text: str) -> str:
    """The rest of its paragraph."""
    return text.partition(word)[2].partition("\n\n")[0]


def test_every_state_is_named() -> None:
    states = README.partition("\n## States")[2].partition("\n## ")[0]
    named = set(re.findall(r"\w+", states))

    assert named.issuperset(STATES)
    assert named.issuperset([*DAEMON_STATES, "stopped"])
    assert named.issuperset(["superseded", "unconfirmed"])  # reasons


def test_everybody_who_may_be_to_blame_has_a_row() -> None:
    rows = re.findall(r"^\| (?:the )?(\w+) \| [^`|]+ \| [^`|]+", PROSE, re.MULTILINE)

    assert {blame.value for blame in Blame} | {"us"} <= set(rows)


def test_every_path_that_is_named_exists() -> None:
    named = re.findall(r"`((?:syncd|tests|config|systemd)/[^`*]*)`", PROSE)
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)", PROSE)

    missing = [path for path in (*named, *linked) if not (ROOT / path).exists()]

    assert len(named) > 20
    assert missing == []


def test_every_room_has_its_row() -> None:
    rooms = {
        path.relative_to(ROOT).as_posix() + "/" * path.is_dir()
        for path in (ROOT / "syncd").iterdir()
        if not path.name.startswith("__")
    }
    rows = "\n".join(re.findall(r"^\| `syncd/.*$", PROSE, re.MULTILINE))

    assert set(re.findall(r"`(syncd/[^`]+)`", rows)) >= rooms


def test_every_setting_that_is_named_exists() -> None:
    sections = "|".join({key.section for key in KEYS})
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", PROSE))
    variables = set(re.findall(r"SYNCD_\w+__\w+", README))

    assert len(named) > 4
    assert named <= {str(key) for key in KEYS}
    assert variables <= {key.variable for key in KEYS} | {TOKEN_VARIABLE}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?:\$ |`)make (\w+)", README))
    makefile = (ROOT / "Makefile").read_text()

    assert {"demo", "test", "check"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# Last, because it ends what the others look at


def test_the_daemon_stops_as_it_is_asked_to(reader: Reader) -> None:
    assert reader.stop_the_daemon() == "0"
