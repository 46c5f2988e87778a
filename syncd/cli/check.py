"""`syncd check`: would it work? Configuration, credentials, database, spool; the API if asked."""

import asyncio
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click

from syncd.cli.door import Door, is_there, must_be_there, opened, strict_door
from syncd.cli.options import config_option, json_option
from syncd.cli.printing import plain
from syncd.cli.status import is_taken, unheard
from syncd.config import read_token, unit_warnings
from syncd.config.keys import HOSTS
from syncd.core.answer import NoReply, NotSent, Reply, error_in, is_error
from syncd.core.outcome import Confirmed, LockedOut, Refused, Unavailable, classify
from syncd.errors import ConfigError, CredentialsError, SyncdError


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    level: Level
    message: str


@click.command("check")
@click.option("--online", is_flag=True, help="Ask the API for a run that does not exist, too.")
@json_option
@config_option
def check_command(*, online: bool, as_json: bool, config_path: str | None) -> int:
    """Would it work? Changes nothing.

    Looks at configuration, credentials, database integrity and spool permissions. No traffic
    unless --online. Exit code 4 for configuration or credentials, 1 for anything else.
    """
    code = 0
    for finding in _findings(config_path, online=online):
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
        else:
            click.echo(f"{finding.level:<4}  {finding.subject:<13}  {plain(finding.message)}")
        if finding.level is Level.FAIL:
            code = max(code, 4 if finding.subject in ("configuration", "credentials") else 1)
    return code


def _findings(config_path: str | None, *, online: bool) -> Iterator[Finding]:
    try:
        to = strict_door(config_path)
    except ConfigError as error:
        for line in error.errors:
            yield Finding("configuration", Level.FAIL, line)
        return
    yield Finding("configuration", Level.OK, f"from {to.config.source}")
    for subject, check in (
        ("credentials", _credentials),
        ("daemon", _daemon),
        ("database", _database),
        ("spool", _spool),
        *([("API", _api)] if online else []),
    ):
        yield from _checked(subject, check, to)


def _checked(
    subject: str, check: Callable[[Door], Iterator[tuple[Level, str]]], to: Door
) -> Iterator[Finding]:
    try:
        for level, message in check(to):
            yield Finding(subject, level, message)
    except CredentialsError as error:
        yield Finding("credentials", Level.FAIL, str(error))
    except SyncdError as error:
        yield Finding(subject, Level.FAIL, str(error))


def _credentials(to: Door) -> Iterator[tuple[Level, str]]:
    for warning in unit_warnings(to.config):
        yield Level.WARN, warning
    try:
        token = read_token(to.config, os.environ)
    except CredentialsError as error:
        file = to.config.api.token_file
        if (file and _would_be_seen(file)) or not _is_up(to):
            raise
        # systemd gives its credential to the daemon alone, and the file may be root's.
        yield Level.WARN, f"not to be seen from here, though the daemon has a token: {error}"
        return
    for warning in token.warnings:
        yield Level.WARN, warning
    yield Level.OK, f"a token from {token.source}"


def _would_be_seen(file: str) -> bool:
    """Whether this user may read the file, or sees that there is none: then no start finds it."""
    try:
        os.stat(file)
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(file, os.R_OK)


def _is_up(to: Door) -> bool:
    try:
        return to.wire.answers()
    except SyncdError:
        return True  # somebody is there, if not for us


def _daemon(to: Door) -> Iterator[tuple[Level, str]]:
    from syncd.store.lock import daemon_of

    status = to.status()
    if status is None:
        if pid := daemon_of(to.paths.store):
            yield Level.WARN, f"runs, pid {pid}, but {unheard(to.paths.socket)}"
            return
        if is_taken(to.paths.socket):
            why = "not a socket: move it away, or name another control.socket"
            yield Level.FAIL, f"{to.paths.socket}: `syncd run` cannot start: {why}"
            return
        yield Level.WARN, f"nobody listens on {to.paths.socket}: the daemon is not running"
    else:
        about = status["daemon"]
        yield Level.OK, f"{about['state']}, pid {about['pid']}, version {about['version']}"


def _database(to: Door) -> Iterator[tuple[Level, str]]:
    from syncd.store import StoreMoved, integrity
    from syncd.store.access import linked
    from syncd.store.schema import locked, newest, open_reader, version

    path = to.paths.store
    if why := _hindrance(to, path):
        yield Level.FAIL, f"{path}: `syncd run` cannot start: {why}"
        return
    if _is_moved(to):  # whatever is there now
        yield Level.FAIL, str(StoreMoved(path))
        return
    must_be_there(path)
    if not is_there(path):
        yield Level.OK, f"{path}: not there yet: the daemon makes it"
        return
    with opened(partial(open_reader, also_older=True), path) as db:
        found = version(db)
        # What it keeps count of is another thing in each version.
        flaws = integrity.damaged(db) if found < newest() else list(integrity.flaws(db))
        busy = locked(path, BUSY_S) if os.access(path, os.W_OK) else None
    if why := linked(path):  # under a daemon: at a start it is a hindrance
        flaws.append(why)
    for flaw in flaws:
        yield Level.FAIL, f"{path}: {flaw}"
    if busy is not None:
        yield Level.WARN, str(busy)
    if (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IRWXO:
        yield Level.WARN, f"{path}: open to everyone on this machine (mode {mode:04o}): chmod 0600"
    if (free := _free_bytes(path)) < SCARCE_BYTES:
        flaws.append(f"only {free:,} bytes are free on its disk: free some space")
        yield Level.FAIL, f"{path}: {flaws[-1]}"
    if not flaws:
        later = f": the next `syncd run` brings it to {newest()}" if found < newest() else ""
        yield Level.OK, f"{path}: sound, schema version {found}{later}"


def _is_moved(to: Door) -> bool:
    """Whether the daemon's database is not in its place, as far as the daemon can say."""
    try:
        status = to.status()
    except SyncdError:
        return not is_there(to.paths.store)
    return status is not None and (status["daemon"].get("moved") or not is_there(to.paths.store))


def _hindrance(to: Door, path: Path) -> str | None:
    """What would keep a start from here; not asked of a daemon that runs, maybe as another user."""
    from syncd.store.access import folder_hindrance, hindrance

    if _is_up(to):
        return None
    return hindrance(path, at_start=True) or folder_hindrance(to.paths.socket.parent)


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def _spool(to: Door) -> Iterator[tuple[Level, str]]:
    from syncd.store.access import folder_hindrance

    path = to.paths.spool
    if not is_there(path) or not os.path.exists(path):
        if why := folder_hindrance(path):
            yield Level.FAIL, f"{path}: cannot be made: {why}"
            return
        if _is_up(to):
            what = "not there, though the daemon runs: put it back before it makes another one"
            yield Level.WARN, f"{path}: {what}, within seconds"
            return
        yield Level.OK, f"{path}: not there yet: the daemon makes it"
        return
    troubles = [
        (level, f"{path / name}: {trouble}")
        for name in ("incoming", "taking", "done", "rejected")
        for level, trouble in _folder(path / name, path)
    ]
    yield from troubles
    if not any(level is Level.FAIL for level, _ in troubles):
        yield Level.OK, f"{path}: its folders can be used"


def _folder(folder: Path, spool: Path) -> Iterator[tuple[Level, str]]:
    from syncd.spool import no_folder
    from syncd.store.access import folder_hindrance

    try:
        status = folder.lstat()  # the daemon follows no link there
    except FileNotFoundError:  # the daemon makes it
        if why := folder_hindrance(folder):
            yield Level.FAIL, f"cannot be made: {why}"
        return
    except OSError as error:
        yield Level.FAIL, f"{error.strerror}"
        return
    if flaw := no_folder(status.st_mode):
        yield Level.FAIL, flaw
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Level.FAIL, "this user may not read and write it"
    if status.st_dev != spool.stat().st_dev:
        yield Level.FAIL, "on another file system: files could not be moved by renaming"
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        yield Level.WARN, "everyone on this machine may write there: chmod o-w"


def _api(to: Door) -> Iterator[tuple[Level, str]]:
    token = read_token(to.config, os.environ)
    url = to.config.api.url
    answer = asyncio.run(_ask(to, token.reveal))
    if isinstance(answer, Reply):
        if answer.status == 404 and not is_error(answer.body):
            why = "answered 404 with something that is not the API: check api.base_url"
            yield Level.FAIL, f"{url}: this address {why}"
            return
        own = urlsplit(HOSTS[to.config.api.version]).path
        if answer.status == 404 and urlsplit(url).path not in ("", own):
            yield (
                Level.WARN,
                f"{url}: 404, and the vendor's own path is {own or '/'}: check api.base_url",
            )
        for level, why in _other_generation(answer, to.config.api.version):
            yield level, f"{url}: {why}: check api.version"
            if level is Level.FAIL:
                return
    match classify(answer, NO_RUN, time.time()):
        case Confirmed() | Refused():
            yield Level.OK, f"{url}: answers, and takes the token"
        case LockedOut(trouble):
            message = f"{url}: does not take the token: {trouble.code}: {trouble.message}"
            raise CredentialsError(message)
        case Unavailable(trouble):
            yield Level.FAIL, f"{url}: {trouble.code}: {trouble.message}"


def _other_generation(answer: Reply, version: str) -> Iterator[tuple[Level, str]]:
    """What shows that the API is of another generation than it is asked for.

    Dated ones may refuse another version, or none. Until 2025 answers are wrapped, `{success, …}`;
    in 2026 they are bare.
    """
    said = error_in(answer.body)
    asked = f"api.version is {version}"
    if said.code == "ENDPOINT_REMOVED" or (
        answer.status == 400 and "version" in (said.message or "").lower()
    ):
        yield Level.FAIL, f"refuses this version, {asked}: {said.message or said.code}"
        return
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return
    if not isinstance(body, dict):
        return
    if "success" in body and version == _FIRST_BARE:
        yield Level.WARN, f"answers like a version before {_FIRST_BARE}, {asked}"
    elif body.get("object") == "workflow_run" and version != _FIRST_BARE:
        yield Level.WARN, f"answers like version {_FIRST_BARE}, {asked}"


_FIRST_BARE = "2026-02-09"
BUSY_S = 2.0  # the daemon and other producers have it for a moment each
SCARCE_BYTES = 8 << 20  # what the log grows to before it is folded back into the database
NO_RUN = "syncd-check-no-such-run"


async def _ask(to: Door, token: Callable[[], str]) -> Reply | NoReply:
    from syncd.api import Api, Endpoint

    api = to.config.api
    client = Api.open(
        Endpoint(api.url, api.version_header, api.workspace_id or None, api.timeout_s), token
    )
    try:
        answer = await client.retrieve(NO_RUN)
        assert not isinstance(answer, NotSent)  # nothing here shuts a gate
        return answer
    finally:
        await client.close()
