"""Install, run, upgrade, roll back, uninstall; and a second account on the same host."""

import json
import re
from pathlib import Path

from installed import Installed, install, make
from machine import Machine

CHECKOUT = Path(__file__).parents[3]

NEXT = "0.1.99"


def test_from_nothing_to_delivered_to_nothing_again(machine: Machine) -> None:
    """An operator's whole acquaintance with syncd, on one machine."""
    said = install(machine)
    assert "systemctl enable --now syncd" in said
    assert machine.shell("find /root/syncd -name __pycache__") == ""  # nothing of root's in there
    service = Installed(machine)
    service.fresh()
    edited = machine.read("/etc/syncd/syncd.toml")

    assert machine.run("systemctl", "enable", "--now", "syncd").returncode == 0
    service.drop("a.jsonl", {"workflow_run_id": "run_1", "name": "first"})
    service.syncd("wait", "--batch", "a.jsonl", "--timeout", "20")
    first = service.status()["daemon"]

    machine.shell(
        f"sed -i 's/^version = .*/version = \"{NEXT}\"/' /root/syncd/pyproject.toml;"
        f"sed -i 's/^__version__ = .*/__version__ = \"{NEXT}\"/' /root/syncd/syncd/__init__.py"
    )
    said = make(machine, "install")
    assert NEXT in said
    assert "sudo systemctl restart syncd" in said
    assert "kept your /etc/syncd/syncd.toml" in said
    assert service.status()["daemon"]["pid"] == first["pid"]
    machine.run("systemctl", "restart", "syncd")
    upgraded = service.status()
    assert upgraded["daemon"]["version"] == NEXT
    assert upgraded["outbox"]["delivered"] == 1
    assert machine.read("/etc/syncd/syncd.toml") == edited
    assert service.property("NRestarts") == "0"

    assert f"installed syncd {first['version']}\n" in make(machine, "rollback")
    machine.run("systemctl", "restart", "syncd")
    assert service.status()["daemon"]["version"] == first["version"]
    service.syncd("enqueue", "run_1", "--name", "second")
    service.delivered()
    assert service.runs()["run_1"]["name"] == "second"

    service.machine.run("systemctl", "stop", "sandbox")
    said = make(machine, "uninstall")
    assert "left alone" in said
    assert machine.run("systemctl", "is-active", "syncd", check=False).stdout == "inactive\n"
    left = machine.shell(
        "find / -xdev -name '*syncd*' -not -path '/root/*' -not -path '/proc/*' -not -path '/run/*'"
        f" -not -path '{CHECKOUT}/*' -newer /etc/machine-id | sort"
    ).split()
    assert left == [
        "/etc/syncd",
        "/etc/syncd/syncd.toml",
        "/var/lib/syncd",
        "/var/lib/syncd/syncd.db",
        "/var/lib/syncd/syncd.db.lock",
        "/var/spool/syncd",
    ]
    assert machine.read("/etc/syncd/token") == "sandbox-token\n"
    assert machine.shell("ls /var/spool/syncd/done").split() == ["a.jsonl"]


def test_the_commands_complete_and_the_manual_is_found(service: Installed) -> None:
    machine = service.machine

    completed = machine.run(
        "bash", "-c",
        "source /usr/local/share/bash-completion/completions/syncd;"
        "COMP_WORDS=(syncd sta); COMP_CWORD=1; _syncd_completion syncd; echo ${COMPREPLY[@]}",
    ).stdout  # fmt: skip

    assert completed == "status\n"
    assert machine.read("/usr/local/share/zsh/site-functions/_syncd").startswith("#compdef syncd")
    assert "complete" in machine.read("/usr/local/share/fish/vendor_completions.d/syncd.fish")
    assert machine.run("man", "--where", "syncd").stdout.endswith("/man/man8/syncd.8\n")


def test_one_host_serves_several_accounts(service: Installed) -> None:
    """Each with its own settings, token, spool, database and socket."""
    machine = service.machine
    machine.shell("rm -f /etc/syncd/acme.* /etc/tmpfiles.d/syncd-acme.conf")
    service.start()
    said = make(machine, "account", "NAME=acme")
    assert "systemctl enable --now syncd@acme" in said
    sample = machine.read("/etc/syncd/acme.toml")
    assert re.findall(r"^\w+ = .*", sample, flags=re.MULTILINE) == [
        'path = "/var/lib/syncd-acme/syncd.db"',
        'path = "/var/spool/syncd-acme"',
        'socket = "/run/syncd-acme/syncd.sock"',
    ]
    address = 'base_url = "http://127.0.0.1:8321/v1"'
    machine.write("/etc/syncd/acme.toml", sample.replace('#base_url = ""', address))
    machine.write("/etc/syncd/acme.token", "sandbox-token\n", mode="600")

    machine.run("systemctl", "enable", "--now", "syncd@acme")

    acme = ("--config", "/etc/syncd/acme.toml")
    service.syncd("enqueue", "run_1", "--name", "of the first")
    service.syncd(*acme, "enqueue", "run_2", "--name", "of acme")
    service.delivered()
    service.syncd(*acme, "wait", "--all", "--timeout", "20")
    assert service.status()["outbox"]["delivered"] == 1
    status = json.loads(service.syncd(*acme, "status", "--json"))
    assert status["outbox"]["delivered"] == 1
    assert status["daemon"]["pid"] != service.status()["daemon"]["pid"]
    assert {run: state["name"] for run, state in service.runs().items()} == {
        "run_1": "of the first",
        "run_2": "of acme",
    }
    assert "Permission denied" in machine.shell(
        "echo x >/var/spool/syncd-acme/incoming/x", user="mallory", check=False
    )
    assert make_fails(machine, "NAME=../x")
    machine.run("systemctl", "disable", "--now", "syncd@acme")


def test_packagers_install_into_a_folder_without_being_root(service: Installed) -> None:
    """DESTDIR stands for the root; what is in it says where it will be."""
    machine = service.machine
    machine.shell("rm -rf /home/alice/*; cp -R /run/share/sources /home/alice/syncd")
    machine.shell("cp -R /run/share/wheels /home/alice; chown -R alice /home/alice")
    before = machine.shell("ls -l --time-style=full-iso /opt/syncd /etc/syncd /usr/local/*")

    machine.run(
        *("make", "-C", "/home/alice/syncd", "install"),
        *("DESTDIR=/home/alice/root", "PREFIX=/usr", "APP=/srv/syncd"),
        user="alice",
        timeout=300,
        HOME="/home/alice",
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="/home/alice/wheels",
    )

    root = "/home/alice/root"
    unit = machine.read(f"{root}/usr/lib/systemd/system/syncd.service")
    assert "ExecStart=/srv/syncd/venv/bin/syncd run " in unit
    assert machine.read(f"{root}/srv/syncd/venv/bin/syncd").startswith("#!/srv/syncd/venv/bin/py")
    assert machine.shell(f"readlink {root}/usr/bin/syncd") == "/srv/syncd/venv/bin/syncd\n"
    assert machine.shell(f"ls {root} {root}/usr/share/man/man8").split() == [
        *(f"{root}:", "etc", "srv", "usr"),
        *(f"{root}/usr/share/man/man8:", "syncd.8"),
    ]
    assert machine.shell(f"grep -rlI {root} {root}", check=False) == ""
    assert machine.shell("ls -l --time-style=full-iso /opt/syncd /etc/syncd /usr/local/*") == before
    machine.run("make", "-C", "/home/alice/syncd", "uninstall", f"DESTDIR={root}", "PREFIX=/usr",
        "APP=/srv/syncd", user="alice")  # fmt: skip
    assert machine.shell(f"cd {root}; find . -type f") == "./etc/syncd/syncd.toml\n"


def make_fails(machine: Machine, argument: str) -> bool:
    try:
        make(machine, "account", argument)
    except AssertionError as refused:
        return "say NAME=" in str(refused)
    return False
