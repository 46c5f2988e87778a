"""Where settings are read from, and where the daemon's own files are looked for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from syncd.config import Config, Control, NoSettings, Paths, Store, guesses, load, locate, parse
from syncd.config.sample import sample
from syncd.errors import ConfigError

ROOT = Path(__file__).parents[2]
HOME = {"HOME": "/home/ann"}


def error_of(mapping: dict, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(mapping, HOME | (environ or {}), "file")
    (error,) = caught.value.errors
    return error


# Paths


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/syncd"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "/x"}, "/x/syncd"),
        ({"HOME": "/home/ann", "XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/syncd"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}, "/var/lib/a"),
    ],
)
def test_the_state_directory(environ: dict[str, str], state: str) -> None:
    paths = locate(Config(), environ)

    assert paths == Paths(
        state=Path(state),
        store=Path(state, "syncd.db"),
        spool=Path(state, "spool"),
        socket=Path(state, "syncd.sock"),
    )


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"HOME": "here"}, '$HOME = "here": must be an absolute path'),
        (
            {"HOME": "here", "XDG_STATE_HOME": "there"},
            '$XDG_STATE_HOME = "there", $HOME = "here": must be an absolute path',
        ),
    ],
)
def test_where_nothing_can_be_kept_no_settings_file_is_blamed(
    environ: dict[str, str], why: str
) -> None:
    assert error_of({}, environ) == f"no place to keep state: {why}"


def test_paths_that_are_set_are_taken_as_they_are() -> None:
    config = Config(store=Store(path="/srv/s.db"), control=Control(socket="/run/x.sock"))

    paths = locate(config, HOME | {"RUNTIME_DIRECTORY": "/run/syncd"})

    assert paths.store == Path("/srv/s.db")
    assert paths.socket == Path("/run/x.sock")


def test_the_socket_prefers_the_runtime_directory() -> None:
    paths = locate(Config(), HOME | {"RUNTIME_DIRECTORY": "/run/syncd:/run/other"})

    assert paths.socket == Path("/run/syncd/syncd.sock")


def test_a_relative_path_is_refused() -> None:
    assert "must be an absolute path" in error_of({"store": {"path": "syncd.db"}})


def test_a_socket_path_too_long_for_the_system_is_refused() -> None:
    given = error_of({"control": {"socket": "/" + "s" * 107}})
    derived = error_of({}, {"RUNTIME_DIRECTORY": "/" + "r" * 96})

    assert "must be an absolute path of at most 107 bytes" in given
    assert "is 108 bytes long, must be at most 107: set it to a shorter path" in derived
    assert parse({"control": {"socket": "/" + "s" * 106}}, HOME, "file")


# Files


def test_the_file_named_wins_over_the_variable_and_that_over_the_default(tmp_path: Path) -> None:
    for name in ("named", "variable", "default"):
        (tmp_path / name).write_text(f'[api]\nworkspace_id = "{name}"\n')
    environ = HOME | {"SYNCD_CONFIG": str(tmp_path / "variable")}
    default = str(tmp_path / "default")

    chosen = [
        load(str(tmp_path / "named"), environ, default=default),
        load(None, environ, default=default),
        load(None, HOME, default=default),
        load(None, HOME, default=str(tmp_path / "none")),
    ]

    assert [config.api.workspace_id for config in chosen] == ["named", "variable", "default", ""]
    assert [Path(config.source).name for config in chosen] == [
        "named",
        "variable",
        "default",
        "defaults",
    ]


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")

    for path, environ in ((missing, HOME), (None, HOME | {"SYNCD_CONFIG": missing})):
        with pytest.raises(ConfigError) as caught:
            load(path, environ)
        assert caught.value.errors == (f"{missing}: cannot be read: No such file or directory",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[api]\nversion = v1\n", "is not TOML: Invalid value (at line 2, column 11)"),
        (b"[api]\n\nversion = '\xff'\n", "is not UTF-8 (at line 3)"),
        (b"a = " + b"[" * 200_000, "is nested too deeply"),
        (b"a = " + b"1" * 5000, "is not TOML"),
        (b"#" * (1 << 20) + b"#", "must be at most 1048576 bytes long"),
    ],
)
def test_a_file_that_cannot_be_understood_is_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "syncd.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(None, HOME, default=str(file))

    (error,) = caught.value.errors
    assert error.startswith(f"{file}: {said}")
    assert "\n" not in error


# Where a daemon may be whose file cannot be understood


def test_a_file_that_cannot_be_understood_is_named_for_who_would_guess(tmp_path: Path) -> None:
    file = tmp_path / "syncd.toml"
    file.write_text("[delivery\n")

    with pytest.raises(NoSettings) as caught:
        load(str(file), HOME)

    assert caught.value.source == str(file)


@pytest.mark.parametrize(
    ("source", "name"),
    [("/etc/syncd/syncd.toml", "syncd"), ("/etc/syncd/acme.toml", "syncd-acme")],
)
def test_the_file_of_a_service_stands_for_the_places_that_its_installation_gives(
    source: str, name: str
) -> None:
    setup = (ROOT / "systemd/setup.sh").read_text()
    given = dict(re.findall(r"(\w+\.\w+)=(/(?:var|run)/[^ \"]*)", setup))
    settings = tomllib.loads(sample({key: at.replace("$2", name) for key, at in given.items()}))

    service, plain = guesses(source, HOME)

    assert len(given) == 3
    assert service[1] == locate(parse(settings, {}, source), HOME)
    assert plain[1] == locate(Config(), HOME)


def test_any_other_file_stands_for_the_places_that_hold_without_one() -> None:
    environ = HOME | {"SYNCD_CONTROL__SOCKET": "/run/mine.sock"}

    ((_, paths),) = guesses("/home/ann/syncd.toml", environ)

    assert paths.socket == Path("/run/mine.sock")
    assert paths.store == Path("/home/ann/.local/state/syncd/syncd.db")


def test_variables_that_are_wrong_stand_for_nothing() -> None:
    assert [*guesses("/home/ann/syncd.toml", HOME | {"SYNCD_STORE__PATH": "here"})] == []


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(str(tmp_path), HOME)


def test_reading_the_settings_loads_nothing_heavy() -> None:
    """The CLI has 0.3 s to start in."""
    heavy = {"asyncio", "aiohttp", "structlog", "rich", "pydantic", "ssl", "difflib", "sqlite3"}
    script = "import sys, syncd.config; syncd.config.load(None, {'HOME': '/'}); print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert not heavy & set(loaded.stdout.split())
