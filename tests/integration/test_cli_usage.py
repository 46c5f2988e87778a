"""What is typed wrongly, in a command or in the settings; and what a terminal is spared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import enqueue
from processes import Sandbox, environment, start_daemon, syncd

from syncd.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frobnicate"], "No such command"),
        (["status", "--colour"], "No such option"),
        (["retry"], "say which patches"),
        (["retry", "1", "--all"], "only one of IDs, --run, --reason and --all"),
        (["retry", "abc"], "'abc': a patch id is a whole number"),
        (["wait"], "say what to wait for"),
        (["wait", "--all", "--patch", "1"], "only one of --batch, --run, --patch and --all"),
        (["wait", "--patch", "1.5"], "'1.5': a patch id is a whole number"),
        (["wait", "--patch", "0"], "0 is not in the range"),
        (["list", "--limit", "many"], "'many': a limit is a whole number"),
        (["sandbox", "--port", "http"], "'http': a port is a whole number"),
        (["why"], "Missing argument"),
        (["why", os.fsdecode(b"\xff")], "not UTF-8"),
        (["plan", "--limit", "0"], "0"),
        (["runs", "--where", "a"], "must be KEY=VALUE"),
        (["list", "--state", "lost"], "lost"),
        (["runs", "--limit", "0"], "0 is not in the range"),
        (["list", "--run", os.fsdecode(b"\xff")], "not UTF-8"),
        (["enqueue"], "say what to hand in"),
        (["enqueue", "r"], "a patch needs a name or metadata"),
        (["enqueue", "..", "--name", "x"], "must not be"),
        (["enqueue", "r", "--set", "a"], "must be KEY=VALUE"),
        (["enqueue", "r", "--metadata", "[1]"], "must be a JSON object"),
        (["enqueue", "--file", "-"], "say --format"),
        (["list", "--run"], "'--run' requires an argument"),
        (["enqueue", "--file", "a.csv", "--name", "x"], "leave the rest out"),
        (["sandbox", "--faults", "rain=1"], "rain"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """The line says what is wrong and where to read on."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)

    found = capsys.readouterr()
    assert ending.value.code == 2
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert complaint in found.err
    named = f"syncd {arguments[0]}" if arguments[0] in COMMANDS else "syncd"
    assert found.err.endswith(f": see `{named} --help`\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("wait", "--batch", ""),
        ("wait", "--batch", ".."),
        ("wait", "--all", "--timeout", "nan"),
        ("wait", "--all", "--timeout", "inf"),
        ("wait", "--patch", str(2**63)),
        ("hold", str(2**64)),
        ("sandbox", "--port", "99999"),
    ],
)
def test_what_can_never_be_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    enqueue("a", folder=tmp_path)

    found = syncd(*arguments, folder=tmp_path)

    assert found.returncode == 2
    assert found.stderr.count("\n") == 1


def test_a_message_that_ends_in_dots_keeps_them(tmp_path: Path) -> None:
    found = syncd("enqueue", "..", "--name", "x", folder=tmp_path)

    assert "workflow_run_id must not be . or ..: see" in found.stderr


def test_every_error_of_the_configuration_is_told(tmp_path: Path) -> None:
    """All at once, one line each, exit code 4."""
    config = tmp_path / "syncd.toml"
    config.write_text("[delivery]\nrate_per_s = -1\nfoldd = true\n")

    found = syncd("status", "--config", config, folder=tmp_path)
    before = syncd("--config", config, "status", folder=tmp_path)

    assert found.returncode == before.returncode == 4
    assert found.stderr == before.stderr
    assert len(found.stderr.splitlines()) == 2
    assert "delivery.rate_per_s = -1" in found.stderr
    assert "delivery.foldd" in found.stderr


def test_wrong_values_do_not_take_the_brake_away(tmp_path: Path) -> None:
    """The daemon runs on with the settings it has: what is wrong with the new ones is told."""
    enqueue("a", folder=tmp_path)
    config = tmp_path / "syncd.toml"
    config.write_text("[delivery]\nmax_in_flight = 0\n")

    paused = syncd("pause", "--config", config, folder=tmp_path)
    status = syncd("status", "--config", config, "--json", folder=tmp_path)

    assert paused.returncode == 0
    assert "delivery.max_in_flight = 0" in paused.stderr
    assert "paused" in json.loads(status.stdout)["daemon"]["reason"]


@pytest.mark.parametrize(
    "settings", ["[delivery]\nfoldd = true\n", '[store]\npath = "here"\n', "[delivery\n"]
)
def test_settings_that_may_mean_another_database_are_refused(tmp_path: Path, settings: str) -> None:
    config = tmp_path / "syncd.toml"
    config.write_text(settings)

    assert syncd("pause", "--config", config, folder=tmp_path).returncode == 4


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A run may be called anything that is not a control character; an error may hold some."""
    syncd("enqueue", "r\u202e1", "--name", "x", folder=tmp_path)

    table = syncd("list", folder=tmp_path).stdout

    assert "r\\u202e1" in table


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_who_wants_no_colours_on_a_terminal_gets_none(
    tmp_path: Path, variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = os.openpty()
    command = (sys.executable, "-m", "syncd", "status")
    env = environment(tmp_path, **variables)
    subprocess.run(command, env=env, cwd=tmp_path, stdout=theirs, check=False)
    os.close(theirs)

    shown = os.read(ours, 1 << 16)
    os.close(ours)

    assert b"stopped" in shown
    assert (b"\x1b[" in shown) == coloured


READERS = (
    ("status",),
    ("list",),
    ("why", "here"),
    ("plan",),
    ("show", "here"),
    ("runs",),
    ("batches",),
    ("wait", "--all", "--timeout", "9"),
)


def test_readers_find_the_daemon_whose_settings_file_has_been_broken(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """It runs on as before. Who would change anything is refused; and all are, when it is gone."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("enqueue", "here", "--name", "x")
        daemon.syncd("wait", "--all", "--timeout", "10")
        daemon.config.write_text("[delivery\n")
        looked = [daemon.syncd(*reader) for reader in READERS]
        as_json = daemon.syncd("status", "--json")
        changed = [
            daemon.syncd(*verb)
            for verb in (("enqueue", "r", "--name", "x"), ("pause",), ("hold", "--all"), ("run",))
        ]
        daemon.stop()
        gone = [daemon.syncd(*reader) for reader in READERS]

    refusal = f"syncd: {daemon.config}: is not TOML: "
    for found in (*looked, as_json):
        assert found.returncode == 0
        assert found.stderr.startswith(refusal)
        assert found.stderr.endswith(f"; asking who listens on {daemon.socket}\n")
        assert found.stderr.count("\n") == 1
        assert found.stdout
    assert json.loads(as_json.stdout)["daemon"]["pid"] == daemon.pid
    for found in (*changed, *gone):
        assert (found.returncode, found.stdout) == (4, "")
        assert found.stderr.startswith(refusal)
        assert found.stderr.count("\n") == 1
        assert "asking" not in found.stderr


@pytest.mark.parametrize(
    ("line", "said", "unsure"),
    [
        ('[delivery]\nrate_per_s = "many"', "delivery.rate_per_s", False),
        ("[store]\nretention_days = -1", "store.retention_days", False),
        ("[store]\npath = 5", "store.path", True),
        ("[delivery]\nrate = 5", "delivery.rate", True),
        ("[delivry]\nrate_per_s = 5", "delivry", True),
    ],
)
def test_readers_find_the_daemon_whatever_is_wrong_in_its_settings(
    tmp_path: Path, sandbox: Sandbox, line: str, said: str, unsure: bool
) -> None:
    """Verbs are refused where it is not sure which daemon is meant; and so is all, if none is."""
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("enqueue", "here", "--name", "x")
        daemon.syncd("wait", "--all", "--timeout", "9")
        daemon.config.write_text(f"{line}\n")
        looked = [daemon.syncd(*reader) for reader in READERS]
        changed = daemon.syncd("pause")
        daemon.stop()
        gone = daemon.syncd("status")

    asking = f"; asking who listens on {daemon.socket}" if unsure else ""
    for found in looked:
        assert found.returncode == 0
        assert found.stderr.startswith(f"syncd: {daemon.config}: {said}")
        assert found.stderr.endswith(f"{asking}\n")
        assert found.stderr.count("\n") == 1
    assert changed.returncode == (4 if unsure else 0)
    assert gone.returncode == (4 if unsure else 3)
