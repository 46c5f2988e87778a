"""Where the daemon keeps its files, and where its commands look for them."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from syncd.config.keys import SOCKET_PATH_BYTES, Config
from syncd.config.rules import as_toml
from syncd.errors import ConfigError


class NoPlace(ConfigError):
    """The environment does not say where to keep anything; no settings file has to do with it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Resolved paths. None of them need exist yet."""

    state: Path
    store: Path
    spool: Path
    socket: Path


def locate(config: Config, environ: Mapping[str, str]) -> Paths:
    """Fill in the paths that the settings leave empty. Raises ConfigError where that cannot be."""
    state = _state_directory(environ)
    runtime = _first_absolute(environ.get("RUNTIME_DIRECTORY", "")) or state
    socket = Path(config.control.socket or runtime / "syncd.sock")
    if (length := len(os.fsencode(socket))) > SOCKET_PATH_BYTES:
        problem = f"{length} bytes long, must be at most {SOCKET_PATH_BYTES}"
        raise ConfigError([f"control.socket: {socket} is {problem}: set it to a shorter path"])
    return Paths(
        state=state,
        store=Path(config.store.path or state / "syncd.db"),
        spool=Path(config.spool.path or state / "spool"),
        socket=socket,
    )


def _state_directory(environ: Mapping[str, str]) -> Path:
    if given := _first_absolute(environ.get("STATE_DIRECTORY", "")):
        return given
    # The XDG specification has relative paths ignored.
    if (xdg := environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(xdg, "syncd")
    if (home := environ.get("HOME", "") or _home_of_user()).startswith("/"):
        return Path(home, ".local/state/syncd")
    names = ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME")
    relative = [f"${name} = {as_toml(environ[name])}" for name in names if environ.get(name)]
    if relative:
        raise NoPlace([f"no place to keep state: {', '.join(relative)}: must be an absolute path"])
    raise NoPlace(["no place to keep state: set $STATE_DIRECTORY, $XDG_STATE_HOME or $HOME"])


def _first_absolute(directories: str) -> Path | None:
    """systemd joins several directories with colons; the first is ours."""
    first = directories.partition(":")[0]
    return Path(first) if first.startswith("/") else None


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
