"""`syncd check`: each trouble is found, named, and ends in the exit code of the contract."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from processes import Daemon, Sandbox, environment, start_sandbox, syncd

from syncd.store import schema


def check(folder: Path, *options: str, **variables: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and what was found: {subject: (level, message)}."""
    found = syncd("check", "--json", *options, folder=folder, **variables)
    findings = [json.loads(line) for line in found.stdout.splitlines()]
    return found.returncode, {it["subject"]: (it["level"], it["message"]) for it in findings}


def test_a_newcomer_lacks_only_the_token(tmp_path: Path) -> None:
    """Before the first start: 4, and nothing is made."""
    code, found = check(tmp_path)

    assert code == 4
    assert found["credentials"][0] == "FAIL"
    assert found["database"][0] == found["spool"][0] == "ok"
    assert not (tmp_path / "state").exists()


def test_with_a_token_all_is_well(tmp_path: Path) -> None:
    """That the daemon is not running is worth a warning, no more."""
    code, found = check(tmp_path, SYNCD_API__TOKEN="secret-token-1")

    assert code == 0
    assert found["daemon"][0] == "warn"
    assert "secret-token-1" not in str(found)


@pytest.mark.parametrize(
    ("settings", "file"), [("syncd.toml", "token"), ("acme.toml", "acme.token")]
)
def test_a_token_that_the_unit_reads_is_for_nobody_else_to_read(
    tmp_path: Path, settings: str, file: str
) -> None:
    """The daemon sees only the copy that systemd gives it, whatever the mode of the file."""
    (tmp_path / settings).write_text("")
    token = tmp_path / file
    token.write_text("secret-token-1")
    told = []
    for mode in (0o644, 0o600):
        token.chmod(mode)
        found = syncd(
            *("check", "--config", tmp_path / settings), folder=tmp_path, SYNCD_API__TOKEN="t"
        )
        told.append([it for it in found.stdout.splitlines() if it.split()[1] == "credentials"])
        assert found.returncode == 0

    (warning, usable), (alone,) = told
    open_to = "everyone on this machine has access to it (mode 0644): chmod 0600"
    assert warning == f"warn  credentials    {token}: {open_to}"
    assert usable == alone == "ok    credentials    a token from $SYNCD_API__TOKEN"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/proc", "stores no files" if os.geteuid() == 0 else "permission denied"),
        ("nothing", "a symbolic link that leads nowhere"),
    ],
)
def test_a_place_that_can_hold_nothing_is_told(tmp_path: Path, target: str, why: str) -> None:
    """It is not `not there yet`: no start makes it, and one that fails says the same."""
    state = tmp_path / "state"
    state.symlink_to(target)

    code, found = check(tmp_path, SYNCD_API__TOKEN="t", SYNCD_SPOOL__PATH=f"{state}")
    _, below = check(tmp_path, SYNCD_API__TOKEN="t")
    ran = syncd("run", folder=tmp_path, SYNCD_API__TOKEN="t")

    assert (code, ran.returncode) == (1, 1)
    for subject, message in (("database", found["database"]), ("spool", below["spool"])):
        assert message[0] == "FAIL", subject
        assert f": {state}: " in message[1]
        assert why in message[1]
    assert target == "/proc" or found["spool"][1].startswith(f"{state}: cannot be made: {state}: ")
    assert f": {state}: " in ran.stderr
    assert why in ran.stderr


def test_a_file_system_that_tells_no_size_may_hold_files_all_the_same(tmp_path: Path) -> None:
    """One in memory that has no bound says of its blocks that it has none, as /proc does."""
    state = tmp_path / "state"
    state.mkdir()
    mounted = f"mount -t tmpfs -o size=0 none {state} && exec {sys.executable} -m syncd check"
    tried = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted],
        env=environment(tmp_path, SYNCD_API__TOKEN="t"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "syncd.db" not in tried.stdout:
        pytest.skip(f"this user may mount nothing: {tried.stderr}")

    assert tried.returncode == 0, tried.stdout
    assert "FAIL" not in tried.stdout


def test_a_wrong_configuration_is_told_whole(tmp_path: Path) -> None:
    """Nothing else can be looked at then."""
    found = syncd("check", folder=tmp_path, SYNCD_API__TIMEOUT_S="-1", SYNCD_LOG__LEVEL="loud")

    assert found.returncode == 4
    assert [line.split()[:2] for line in found.stdout.splitlines()] == [
        ["FAIL", "configuration"],
        ["FAIL", "configuration"],
    ]


def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    """A page that is not what it was."""
    syncd("enqueue", "--file", "-", "--format", "jsonl", folder=tmp_path, input=_patches(300))
    database = tmp_path / "state/syncd/syncd.db"
    with database.open("r+b") as file:
        file.seek(-20_000, os.SEEK_END)
        file.write(b"\xaa" * 9_000)

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")

    assert code == 1
    assert found["database"][0] == "FAIL"


def test_a_counter_that_is_missing_is_found(tmp_path: Path) -> None:
    """And `status` goes on without it."""
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    db = sqlite3.connect(tmp_path / "state/syncd/syncd.db")
    db.execute("DELETE FROM counters WHERE state IN ('dead', 'pending')")
    db.commit()
    db.close()

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")
    status = syncd("status", folder=tmp_path)

    assert code == 1
    assert "the counter of dead says nothing, there are 0" in found["database"][1]
    assert status.returncode == 3


def test_a_counter_that_is_wrong_is_found(tmp_path: Path) -> None:
    """Nobody counts rows but `check`."""
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    db = sqlite3.connect(tmp_path / "state/syncd/syncd.db")
    db.execute("UPDATE counters SET n = 7 WHERE state = 'pending'")
    db.commit()
    db.close()

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")

    assert code == 1
    assert "the counter of pending says 7, there are 1" in found["database"][1]


def test_a_schema_that_the_next_start_brings_up_to_date_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade, before the start. Readers cannot read it yet, and say what changes that."""
    path, scripts = tmp_path / "state/syncd/syncd.db", schema._migrations()
    with monkeypatch.context() as older:
        older.setattr(schema, "_migrations", lambda: scripts[:-1])
        schema.open_writer(path).close()
    brought = f"schema version {len(scripts) - 1}: the next `syncd run` brings it to {len(scripts)}"

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")
    listed = syncd("list", folder=tmp_path)
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    _, after = check(tmp_path, SYNCD_API__TOKEN="t")

    assert code == 0
    assert found["database"] == ("ok", f"{path}: sound, {brought}")
    assert listed.returncode == 1
    assert f"{path}: {brought}" in listed.stderr
    assert after["database"] == ("ok", f"{path}: sound, schema version {len(scripts)}")


def test_a_database_of_two_names_is_told(tmp_path: Path) -> None:
    """No start would take it."""
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    path = tmp_path / "state/syncd/syncd.db"
    os.link(path, tmp_path / "other.db")

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")

    assert (code, found["database"][0]) == (1, "FAIL")
    assert f"{path}: `syncd run` cannot start: has 2 hard links" in found["database"][1]


def test_a_second_name_of_the_database_is_told_under_the_daemon_too(daemon: Daemon) -> None:
    other = daemon.database.with_name("other.db")
    os.link(daemon.database, other)
    try:
        found = daemon.syncd("check")
    finally:
        other.unlink()

    assert found.returncode == 1
    assert f"FAIL  database       {daemon.database}: has 2 hard links" in found.stdout


def test_who_keeps_the_database_locked_is_told(tmp_path: Path) -> None:
    syncd("enqueue", "r", "--name", "x", folder=tmp_path)
    path = tmp_path / "state/syncd/syncd.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        found = syncd("check", folder=tmp_path, SYNCD_API__TOKEN="t")

    assert found.returncode == 0
    (told, _) = [it for it in found.stdout.splitlines() if it.split()[1] == "database"]
    assert told.startswith(f"warn  database       {path}: locked by another process")
    assert f"fuser -v {path}" in told


def test_a_spool_open_to_everyone_is_told(tmp_path: Path) -> None:
    """Whoever may write there may set anything on any run."""
    incoming = tmp_path / "state/syncd/spool/incoming"
    incoming.mkdir(parents=True)
    incoming.chmod(0o777)

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")

    assert code == 0
    assert (
        "everyone on this machine may write there"
        in syncd("check", folder=tmp_path, SYNCD_API__TOKEN="t").stdout
    )
    assert found["spool"][0] == "ok"


def test_a_folder_of_the_spool_that_is_a_link_is_told(tmp_path: Path) -> None:
    """Wherever it leads: the daemon follows none. The spool itself may be reached through one."""
    spool = tmp_path / "state/syncd/spool"
    spool.parent.mkdir(parents=True)
    (tmp_path / "disk/incoming").mkdir(parents=True)
    spool.symlink_to(tmp_path / "disk")
    before = check(tmp_path, SYNCD_API__TOKEN="t")
    (spool / "taking").symlink_to(tmp_path / "disk/incoming")

    code, found = check(tmp_path, SYNCD_API__TOKEN="t")

    assert (before[0], before[1]["spool"][0]) == (0, "ok")
    assert code == 1
    why = f"{spool / 'taking'}: a symbolic link, not a folder: move it away"
    assert found["spool"] == ("FAIL", why)


@pytest.mark.parametrize(
    ("token", "expected"),
    [("sandbox-token", (0, "API", "ok")), ("another-token", (4, "credentials", "FAIL"))],
)
def test_online_asks_the_api_whether_it_takes_the_token(
    tmp_path: Path, sandbox: Sandbox, token: str, expected: tuple[int, str, str]
) -> None:
    """By asking for a run that does not exist: nothing is changed there."""
    variables = {"SYNCD_API__BASE_URL": sandbox.url, "SYNCD_API__TOKEN": token}

    code, found = check(tmp_path, "--online", **variables)

    subject = expected[1]
    assert (code, subject, found[subject][0]) == expected
    assert sandbox.runs() == {}


@pytest.mark.parametrize(
    ("api", "asked", "level", "words"),
    [
        ("v1", "2026-02-09", "warn", "answers like a version before 2026-02-09"),
        ("2026-02-09", "v1", "FAIL", "refuses this version, api.version is v1"),
        ("2026-02-09", "2025-04-21", "FAIL", "refuses this version, api.version is 2025-04-21"),
    ],
)
def test_online_notices_another_generation_of_the_api(
    tmp_path: Path, api: str, asked: str, level: str, words: str
) -> None:
    """And names the key that chooses it."""
    with start_sandbox(tmp_path, "--api", api) as other:
        found = syncd(
            *("check", "--json", "--online"),
            folder=tmp_path,
            SYNCD_API__BASE_URL=other.url,
            SYNCD_API__VERSION=asked,
            SYNCD_API__TOKEN="sandbox-token",
        )

    told = [json.loads(line) for line in found.stdout.splitlines()]
    (finding,) = [it for it in told if "check api.version" in it["message"]]
    assert (finding["subject"], finding["level"]) == ("API", level)
    assert words in finding["message"]
    assert found.returncode == (1 if level == "FAIL" else 0)


def test_online_says_what_stands_between(tmp_path: Path) -> None:
    """Nobody listens there: 1."""
    variables = {"SYNCD_API__BASE_URL": "http://127.0.0.1:1/v1", "SYNCD_API__TOKEN": "t"}

    code, found = check(tmp_path, "--online", **variables)

    assert code == 1
    assert found["API"][0] == "FAIL"
    assert "connect" in found["API"][1]


class _Elsewhere(BaseHTTPRequestHandler):
    """A web server that is not the API, and has a page for what it does not know."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_online_does_not_take_another_server_for_the_api(tmp_path: Path) -> None:
    """Which says 404 to everything, as the API does to a run that does not exist."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        code, found = check(tmp_path, "--online", SYNCD_API__BASE_URL=url, SYNCD_API__TOKEN="t")
        server.shutdown()

    why = "this address answered 404 with something that is not the API: check api.base_url"
    assert code == 1
    assert found["API"] == ("FAIL", f"{url}: {why}")


def _patches(count: int) -> str:
    return "".join(
        json.dumps({"workflow_run_id": f"run_{n}", "metadata": {"text": "x" * 500}}) + "\n"
        for n in range(count)
    )
