"""syncd as an operator has it: installed on a machine, beside a sandbox and some users."""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from machine import Machine

PORT = 8321
TOKEN = "sandbox-token"
PATIENCE_S = 30.0
SETTINGS = "/etc/syncd/syncd.toml"
DROP_INS = "/etc/systemd/system/syncd.service.d"
INCOMING = "/var/spool/syncd/incoming"

# Quick settings, on top of the sample as it was installed.
QUICK: Mapping[str, Mapping[str, object]] = {
    "api": {"base_url": f"http://127.0.0.1:{PORT}/v1", "timeout_s": 2.0},
    "delivery": {"rate_per_s": 200.0},
    "retry": {"base_s": 0.05, "cap_s": 0.5},
    "spool": {"settle_s": 0.1},
}

SANDBOX = f"""\
[Service]
ExecStart=/opt/syncd/venv/bin/syncd sandbox --port {PORT}
ExecStartPost=/bin/bash -c 'until : </dev/tcp/127.0.0.1/{PORT}; do sleep 0.02; done 2>/dev/null'
"""

ASK = """
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], body, timeout=10).read())
"""


def patch(run: str, **metadata: object) -> dict[str, Any]:
    return {"workflow_run_id": run, "metadata": metadata}


class Installed:
    """The service on one machine, and how people get at it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._sample = machine.read(SETTINGS)
        self._since = "@0"
        machine.write("/run/systemd/system/sandbox.service", SANDBOX)
        for user in ("alice", "bob"):
            machine.run("useradd", "--create-home", "--groups", "syncd", user)
        machine.run("useradd", "--create-home", "mallory")

    def fresh(self) -> None:
        """As after an installation: no data, quick settings, a token, the sandbox running."""
        self.machine.shell(
            "systemctl stop 'syncd*.service' sandbox.service\n"
            f"rm -rf /var/lib/syncd* {DROP_INS} {INCOMING}/* {INCOMING}/.[!.]*\n"
            "rm -rf /var/spool/syncd/done /var/spool/syncd/rejected /var/spool/syncd/taking\n"
            "systemctl reset-failed 2>/dev/null; systemctl daemon-reload\n"
            "systemctl start sandbox.service"
        )
        self.machine.write("/etc/syncd/token", f"{TOKEN}\n", mode="600")
        self.configure()
        self._since = f"@{time.time():.6f}"

    def configure(self, **config: Mapping[str, object]) -> None:
        """Change the sample as an operator does: QUICK, and what is given on top of that."""
        wanted = {
            (section, key): value
            for part in (QUICK, config)
            for section, keys in part.items()
            for key, value in keys.items()
        }
        section, lines = "", []
        for line in self._sample.splitlines():
            if header := re.fullmatch(r"\[(\w+)\]", line):
                section = header[1]
            key = re.match(r"#?(\w+) = ", line)
            value = wanted.pop((section, key[1]), None) if key else None
            lines.append(
                line if key is None or value is None else f"{key[1]} = {json.dumps(value)}"
            )
        assert not wanted, f"the sample has no {wanted}"
        self.machine.write(SETTINGS, "\n".join(lines) + "\n")

    def drop_in(self, text: str, name: str = "test.conf") -> None:
        """Change the unit as an operator does."""
        self.machine.write(f"{DROP_INS}/{name}", text)
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """`systemctl start syncd`; it is ready when this returns."""
        done = self.machine.run("systemctl", "start", "syncd", check=False)
        assert done.returncode == 0, f"{done.stderr}\n{self.journal()}"

    def syncd(self, *arguments: str, user: str = "alice", check: bool = True) -> str:
        """What a command says to a user."""
        done = self.machine.run("syncd", *arguments, user=user, check=False)
        assert done.returncode == 0 or not check, f"{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """`syncd status --json`."""
        status: dict[str, Any] = json.loads(self.syncd("status", "--json"))
        return status

    def drop(self, name: str, *patches: Mapping[str, object], user: str = "alice") -> None:
        """Put a file of patches into the spool: written aside, then renamed."""
        lines = "".join(json.dumps(patch) + "\n" for patch in patches)
        draft = f"{INCOMING}/.{name}.tmp"
        script = f"umask 077; cat >{draft} && mv {draft} {INCOMING}/{name}"
        self.machine.run("sh", "-c", script, user=user, input=lines)

    def delivered(self) -> None:
        """Wait until nothing waits any more."""
        said = self.machine.run("syncd", "wait", "--all", "--timeout", "20", check=False)
        assert said.returncode == 0, f"{said.stdout}{said.stderr}\n{self.journal()}"

    def sandbox(self, what: str, body: Mapping[str, object] | None = None) -> Any:
        """The sandbox's `state`, `stats` or `requests`, or a change of its `settings`."""
        address = f"http://127.0.0.1:{PORT}/_sandbox/{what}"
        arguments = [address] if body is None else [address, json.dumps(body)]
        answer = self.machine.run("/opt/syncd/venv/bin/python", "-c", ASK, *arguments).stdout
        return json.loads(answer)

    def runs(self) -> dict[str, dict[str, Any]]:
        """What the API holds."""
        runs: dict[str, dict[str, Any]] = self.sandbox("state")["runs"]
        return runs

    def property(self, name: str, unit: str = "syncd") -> str:
        """One property of a unit, as `systemctl show` has it."""
        return self.machine.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, *options: str) -> str:
        """The service's log since the test began, as text."""
        self.machine.run("journalctl", "--sync")
        # Not --after-cursor: together with other conditions it leaves out the first line.
        what = ("--unit=syncd", f"--since={self._since}", "--output=cat", "--no-pager")
        return self.machine.run("journalctl", *what, *options, check=False).stdout

    def events(self, *options: str) -> list[dict[str, Any]]:
        """The lines that syncd has logged itself."""
        lines = self.journal(*options).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def eventually(self, is_so: Callable[[], object], timeout: float = PATIENCE_S) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout
        while not is_so():
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.1)


def install(machine: Machine) -> str:
    """`sudo make install` from a copy of the sources. What it prints."""
    machine.run("rm", "-rf", "/root/syncd")
    machine.run("cp", "-R", "/run/share/sources", "/root/syncd")
    return make(machine, "install")


def make(machine: Machine, *arguments: str) -> str:
    """`sudo make …` in that copy, with wheels in place of a network. What it prints."""
    variables = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/run/share/wheels",
    }
    # A umask that would make files unreadable for the daemon, as some administrators have it.
    script = 'umask 077; exec make --no-print-directory -C /root/syncd "$@"'
    return machine.run("sh", "-c", script, "make", *arguments, timeout=300, **variables).stdout
