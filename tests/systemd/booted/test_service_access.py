"""Who may do what with the service, under a real systemd."""

import time

from installed import INCOMING, Installed, patch

SLOW = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write('{"workflow_run_id": "run_1", "name": "x"}\\n')
    file.flush()
    while not os.path.exists("/tmp/go-on"):
        time.sleep(0.05)
    file.write('{"workflow_run_id": "run_2", "name": "x"}\\n')
"""


def test_a_patch_that_a_member_drops_is_delivered(service: Installed) -> None:
    service.start()

    service.drop("a.jsonl", patch("run_1", colour="red"), patch("run_2", colour="blue"))
    service.syncd("wait", "--batch", "a.jsonl", "--timeout", "20")
    service.syncd("enqueue", "run_3", "--name", "by command")
    service.delivered()

    runs = service.runs()
    assert runs["run_1"]["metadata"] == {"colour": "red"}
    assert runs["run_2"]["metadata"] == {"colour": "blue"}
    assert runs["run_3"]["name"] == "by command"
    assert service.machine.shell("ls /var/spool/syncd/done", user="alice").split() == ["a.jsonl"]


def test_a_member_can_only_add(service: Installed) -> None:
    service.start()
    service.machine.run("systemctl", "stop", "syncd")
    service.drop("alices.jsonl", patch("run_1", colour="red"))

    said = service.machine.shell(
        f"cd {INCOMING}; ls; cat alices.jsonl; echo x >>alices.jsonl; rm -f alices.jsonl;"
        "mv alices.jsonl bobs.jsonl; cp alices.jsonl /tmp/stolen; : >bobs.jsonl; mv -f bobs.jsonl"
        " alices.jsonl; cat /var/lib/syncd/syncd.db; cat /etc/syncd/token; exit 0",
        user="bob",
    )

    assert said.count("denied") + said.count("not permitted") == 9
    service.machine.run("rm", "-f", f"{INCOMING}/bobs.jsonl")
    service.start()
    service.delivered()
    assert service.runs()["run_1"]["metadata"] == {"colour": "red"}


def test_a_stranger_can_neither_drop_nor_read_nor_connect(service: Installed) -> None:
    service.start()
    service.syncd("enqueue", "run_1", "--name", "x")

    said = service.machine.shell(
        f"echo x >{INCOMING}/x; ls /var/spool/syncd; ls /var/spool/syncd/done;"
        "cat /var/lib/syncd/syncd.db; ls /run/syncd; cat /etc/syncd/token;"
        "cat /run/credentials/syncd.service/token; exit 0",
        user="mallory",
    )
    asked = service.machine.run("syncd", "status", user="mallory", check=False)

    assert said.lower().count("permission denied") == 7
    assert asked.returncode == 1
    assert asked.stderr == (
        "syncd: /run/syncd/syncd.sock: permission denied: only root and members of the group"
        " syncd may talk to this daemon\n"
    )


def test_an_unreadable_file_is_reported_and_stops_nobody(service: Installed) -> None:
    service.start()

    service.machine.shell(
        f"f=$(mktemp); echo '{{}}' >$f; mv $f {INCOMING}/closed.json", user="alice"
    )
    service.drop("open.jsonl", patch("run_1", colour="red"))
    service.syncd("wait", "--batch", "open.jsonl", "--timeout", "20")

    left = [
        event for event in service.events("--priority=warning") if event["event"] == "file.left"
    ]
    assert [event["file"] for event in left] == ["closed.json"]
    service.eventually(lambda: "closed.json" in service.property("StatusText"))


def test_a_file_that_a_member_still_writes_is_not_taken_though_it_has_long_been_still(
    service: Installed,
) -> None:
    """Of what was opened before the start no event tells, and the file is not the daemon's own."""
    file = f"{INCOMING}/slow.jsonl"
    service.machine.run("rm", "-f", "/tmp/go-on")
    slow = ("--collect", "--quiet", "--uid=alice", "python3", "-c", SLOW, file)
    service.machine.run("systemd-run", *slow)
    service.eventually(lambda: service.machine.shell(f"test -s {file} && echo yes", check=False))

    service.start()
    time.sleep(1)  # ten times spool.settle_s
    waiting = service.status()["spool"]["waiting"]
    service.machine.run("touch", "/tmp/go-on")

    service.syncd("wait", "--batch", "slow.jsonl", "--timeout", "20")
    assert waiting == 1
    assert set(service.runs()) == {"run_1", "run_2"}


def test_members_may_insert_rows_where_the_operator_has_opted_in(service: Installed) -> None:
    insert = (
        "import sqlite3; db = sqlite3.connect('/var/lib/syncd/syncd.db', timeout=10);"
        "db.execute(\"INSERT INTO outbox (workflow_run_id, name) VALUES ('run_1', 'row')\");"
        "db.commit()"
    )
    service.start()
    before = service.machine.run("python3", "-c", insert, user="alice", check=False)
    service.machine.shell(
        "install -D -m 644 /usr/local/share/syncd/rows.conf"
        " /etc/systemd/system/syncd.service.d/rows.conf && chmod 2770 /var/lib/syncd"
    )
    service.configure(store={"group_access": "write"})
    service.machine.run("systemctl", "daemon-reload")
    service.machine.run("systemctl", "restart", "syncd")

    service.machine.run("python3", "-c", insert, user="alice")
    service.delivered()

    assert before.returncode != 0
    assert service.runs()["run_1"]["name"] == "row"
    assert service.machine.run("python3", "-c", insert, user="mallory", check=False).returncode != 0
