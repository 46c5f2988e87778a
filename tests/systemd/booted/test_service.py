"""The service as it is shipped, under a real systemd, with every setting of its sandbox on."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from installed import INCOMING, SETTINGS, Installed

SLOW = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write('{"workflow_run_id": "run_1", "name": "x"}\\n')
    file.flush()
    while not os.path.exists("/tmp/go-on"):
        time.sleep(0.05)
    file.write('{"workflow_run_id": "run_2", "name": "x"}\\n')
"""
THREADS = (Path(__file__).parents[1] / "threads.py").read_text()


def patch(run: str, **metadata: object) -> dict[str, Any]:
    return {"workflow_run_id": run, "metadata": metadata}


# Start


def test_start_returns_when_it_is_ready_and_status_says_so(service: Installed) -> None:
    service.start()

    assert service.property("ActiveState") == "active"
    assert service.property("StatusText") == "nothing waits, 0 patches delivered"
    assert service.status()["daemon"]["running"] is True
    assert "nothing waits" in service.machine.run("systemctl", "status", "syncd").stdout


def test_the_unit_as_installed_passes_systemds_own_checks(service: Installed) -> None:
    unit = "/usr/local/lib/systemd/system/syncd.service"
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes"]
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=13"]

    for name in (unit, unit.replace("syncd.", "syncd@acme.")):
        assert service.machine.run(*verify, name).stderr == ""
    service.machine.run(*security, unit)


def test_without_a_token_the_start_fails_once_and_says_what_to_do(service: Installed) -> None:
    service.machine.run("rm", "/etc/syncd/token")

    started = service.machine.run("systemctl", "start", "syncd", check=False)

    assert started.returncode != 0
    (line,) = service.journal("--priority=err", "--identifier=syncd").splitlines()
    for part in ("no API token", "syncd.service", "LoadCredential=", "/etc/syncd/token", "0600"):
        assert part in line
    assert line in service.machine.run("systemctl", "status", "syncd", check=False).stdout
    assert service.property("ExecMainStatus") == "4"
    time.sleep(6)  # longer than RestartSec
    assert service.property("NRestarts") == "0"
    assert service.property("ActiveState") == "failed"


def test_with_wrong_settings_the_start_fails_once_and_names_them_all(service: Installed) -> None:
    service.configure(delivery={"rate_per_s": -1}, log={"level": "loud"})

    started = service.machine.run("systemctl", "start", "syncd", check=False)

    assert started.returncode != 0
    lines = service.journal("--priority=err", "--identifier=syncd").splitlines()
    assert len(lines) == 2
    assert all(SETTINGS in line for line in lines)
    assert service.property("ExecMainStatus") == "4"


def test_without_its_settings_it_does_not_go_on_with_others(service: Installed) -> None:
    """With the defaults it would send what waits to the vendor's own host, in another form."""
    service.start()
    service.machine.run("mv", SETTINGS, f"{SETTINGS}.away")

    service.machine.run("systemctl", "reload", "syncd")
    service.eventually(lambda: SETTINGS in service.property("StatusText"))
    refused = service.property("ActiveState"), service.events()[-1]["event"]
    started = service.machine.run("systemctl", "restart", "syncd", check=False)

    service.machine.run("mv", f"{SETTINGS}.away", SETTINGS)
    assert refused == ("active", "daemon.reload_refused")
    assert started.returncode != 0
    assert f"{SETTINGS}: cannot be read" in service.journal("--priority=err", "--identifier=syncd")
    assert service.property("ExecMainStatus") == "4"


# Who may do what


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


# Reload


def test_a_reload_takes_over_what_has_changed(service: Installed) -> None:
    service.start()
    pid = service.property("MainPID")
    service.configure(delivery={"rate_per_s": 3.5}, log={"level": "debug"})

    service.machine.run("systemctl", "reload", "syncd")

    service.eventually(lambda: service.status()["gate"]["limit_per_s"] == 3.5)
    assert service.property("ActiveState") == "active"
    assert service.property("MainPID") == pid
    (reloaded,) = [event for event in service.events() if event["event"] == "daemon.reloaded"]
    assert set(reloaded["changed"]) == {"delivery.rate_per_s", "log.level"}


def test_a_bad_reload_changes_nothing_and_tells_why(service: Installed) -> None:
    service.start()
    pid = service.property("MainPID")
    service.configure(delivery={"rate_per_s": 3.5}, retry={"cap_s": -1})

    service.machine.run("systemctl", "reload", "syncd")

    service.eventually(lambda: "retry.cap_s = -1" in service.property("StatusText"))
    (refused,) = service.events("--priority=err")
    assert refused["event"] == "daemon.reload_refused"
    assert f"{SETTINGS}: retry.cap_s = -1" in refused["error"]
    service.configure()
    assert service.status()["gate"]["limit_per_s"] == 200.0
    assert (service.property("ActiveState"), service.property("MainPID")) == ("active", pid)


def test_the_credential_is_rotated_by_a_restart(service: Installed) -> None:
    service.start()
    service.sandbox("settings", {"token": "the-next-token"})
    service.syncd("enqueue", "run_1", "--name", "x")
    service.eventually(lambda: service.status()["daemon"]["state"] == "blocked")
    service.machine.write("/etc/syncd/token", "the-next-token\n", mode="600")

    service.machine.run("systemctl", "restart", "syncd")

    service.delivered()
    assert "the-next-token" not in service.journal()


def test_a_token_file_is_rotated_by_a_reload(service: Installed) -> None:
    service.machine.shell("install -o syncd -m 600 /etc/syncd/token /etc/syncd/own-token")
    service.configure(api={"token_file": "/etc/syncd/own-token"})
    service.start()
    pid = service.property("MainPID")
    service.sandbox("settings", {"token": "the-next-token"})
    service.syncd("enqueue", "run_1", "--name", "x")
    service.eventually(lambda: service.status()["daemon"]["state"] == "blocked")
    service.machine.shell("echo the-next-token >/etc/syncd/own-token")

    service.machine.run("systemctl", "reload", "syncd")

    service.delivered()
    assert service.property("MainPID") == pid


# Crashes and hangs


def test_nothing_is_lost_by_a_kill(service: Installed) -> None:
    service.configure(delivery={"rate_per_s": 40.0, "max_in_flight": 4})
    service.sandbox("settings", {"latency_s": 0.05})
    service.start()
    service.drop("many.jsonl", *[patch(f"run_{number}", mark=number) for number in range(200)])
    service.eventually(lambda: service.sandbox("stats")["requests"] > 20)

    service.machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "syncd")

    service.eventually(lambda: service.property("NRestarts") == "1")
    service.eventually(lambda: service.property("ActiveState") == "active")
    service.syncd("wait", "--batch", "many.jsonl", "--timeout", "30")
    marks = {run: state["metadata"]["mark"] for run, state in service.runs().items()}
    assert marks == {f"run_{number}": number for number in range(200)}
    assert service.sandbox("stats")["max_in_flight_per_run"] == 1


def test_a_daemon_that_hangs_is_restarted(service: Installed) -> None:
    service.drop_in("[Service]\nWatchdogSec=2s\n")
    service.start()
    service.syncd("enqueue", "run_1", "--name", "before")
    service.delivered()

    service.machine.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", "syncd")

    service.eventually(lambda: service.property("NRestarts") == "1")
    service.eventually(lambda: service.property("ActiveState") == "active")
    assert "Watchdog timeout" in service.journal()
    service.syncd("enqueue", "run_2", "--name", "after")
    service.delivered()
    assert set(service.runs()) == {"run_1", "run_2"}


def test_a_relay_that_is_stuck_while_the_loop_goes_on_is_restarted(service: Installed) -> None:
    """The threads of the database hang, which no signal can do to a thread alone."""
    service.drop_in("[Service]\nWatchdogSec=2s\n")
    service.start()
    service.drop("failing.jsonl", patch("run~500", mark=1))
    service.eventually(lambda: service.sandbox("stats")["requests"] > 1)
    service.machine.write("/tmp/threads.py", THREADS)
    pid = service.property("MainPID")

    service.machine.run("python3", "/tmp/threads.py", pid, timeout=60)

    service.eventually(lambda: service.property("NRestarts") == "1")
    service.eventually(lambda: service.property("ActiveState") == "active")
    journal = service.journal()
    stuck = next(event for event in service.events() if event["event"] == "relay.stuck")
    assert stuck["level"] == "error"
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal  # and where each thread stood
    service.syncd("discard", "--run", "run~500")
    service.syncd("enqueue", "run_1", "--name", "x")
    service.syncd("wait", "--run", "run_1", "--timeout", "20")


def test_a_daemon_that_only_waits_is_left_alone(service: Installed) -> None:
    """Paused, with work, for several times what the watchdog allows for standing still."""
    service.drop_in("[Service]\nWatchdogSec=1s\n")
    service.start()
    service.syncd("pause")
    service.syncd("enqueue", "run_1", "--name", "x")

    service.eventually(lambda: "paused" in service.property("StatusText"))
    time.sleep(4)

    assert service.property("NRestarts") == "0"
    assert service.events("--priority=warning") == []


# Stop


def test_a_stop_waits_for_answers_longer_than_its_timeout_if_it_is_told_to(
    service: Installed,
) -> None:
    service.configure(delivery={"drain_s": 10.0}, api={"timeout_s": 20.0})
    service.drop_in("[Service]\nTimeoutStopSec=2s\nWatchdogSec=1s\n")
    service.sandbox("settings", {"latency_s": 4.0})
    service.start()
    service.drop("a.jsonl", patch("run_1", mark=1))
    service.eventually(lambda: service.sandbox("stats")["requests"] == 1)

    service.machine.run("systemctl", "stop", "syncd")

    assert service.property("Result") == "success"
    assert service.property("ExecMainStatus") == "0"
    assert service.machine.shell("ls /var/lib/syncd").split() == ["syncd.db", "syncd.db.lock"]
    assert [event["event"] for event in service.events()][-2:] == [
        "daemon.draining",
        "daemon.stopped",
    ]
    service.sandbox("settings", {"latency_s": 0.0})
    service.start()
    service.delivered()
    assert service.sandbox("stats")["requests"] == 1


def test_a_stop_ends_in_time_though_no_answer_comes(service: Installed) -> None:
    service.configure(delivery={"drain_s": 1.0}, api={"timeout_s": 60.0})
    service.sandbox("settings", {"faults": "hang=1"})
    service.start()
    service.drop("a.jsonl", patch("run_1", mark=1))
    service.eventually(lambda: service.sandbox("stats")["requests"] == 1)

    began = time.monotonic()
    service.machine.run("systemctl", "stop", "syncd")

    assert time.monotonic() - began < 5.0
    assert service.property("Result") == "success"
    service.sandbox("settings", {"faults": ""})
    service.start()
    service.delivered()
    assert service.runs()["run_1"]["metadata"] == {"mark": 1}


def test_a_stop_ends_in_time_though_the_database_hangs(service: Installed) -> None:
    service.configure(delivery={"drain_s": 1.0})
    service.start()
    service.drop("a.jsonl", patch("run_1", mark=1))
    service.delivered()
    service.machine.write("/tmp/threads.py", THREADS)
    hold = f"exec python3 /tmp/threads.py {service.property('MainPID')} >/tmp/held"
    service.machine.run("systemd-run", "--collect", "--quiet", "sh", "-c", hold)
    service.eventually(lambda: "stopped" in service.machine.read("/tmp/held"))

    began = time.monotonic()
    service.machine.run("systemctl", "stop", "syncd", timeout=60)

    assert time.monotonic() - began < 20.0  # TimeoutStopSec is 45 s
    assert [event["event"] for event in service.events()][-1] == "daemon.cut_off"
    service.start()
    assert service.status()["outbox"]["delivered"] == 1


# The log, and what else is shipped


def test_warnings_alone_tell_the_story_of_an_outage(service: Installed) -> None:
    service.start()
    service.sandbox("settings", {"faults": "503=1"})
    service.drop("many.jsonl", *[patch(f"run_{number}", mark=number) for number in range(30)])
    service.eventually(lambda: service.sandbox("stats")["requests"] > 30)
    service.eventually(lambda: "waiting: the API is failing" in service.property("StatusText"))
    service.sandbox("settings", {"faults": ""})
    service.delivered()

    assert [event["event"] for event in service.events("--priority=warning")] == [
        "gate.shut",
        "gate.open",
    ]
    assert len(service.events()) <= 8
    raw = service.journal("--output=json", "--identifier=syncd").splitlines()
    for line in map(json.loads, raw):
        assert line["PRIORITY"] in "3467"
        assert line["MESSAGE"].startswith("{")


def test_it_works_behind_the_address_filter(service: Installed) -> None:
    service.machine.shell(
        "install -D -m 644 /usr/local/share/syncd/address-filter.conf"
        " /etc/systemd/system/syncd.service.d/address-filter.conf && systemctl daemon-reload"
    )
    service.start()

    service.syncd("enqueue", "run_1", "--name", "x")

    service.delivered()


def test_metrics_are_served_inside_the_sandbox(service: Installed) -> None:
    service.configure(control={"metrics": "127.0.0.1:9464"})
    service.start()

    text = service.machine.run(
        "python3", "-c",
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read())",
    ).stdout  # fmt: skip

    assert "syncd_" in text


@pytest.mark.parametrize("user", ["root", "alice"])
def test_a_check_finds_the_running_service_in_order(service: Installed, user: str) -> None:
    service.start()

    said = service.machine.run("syncd", "check", user=user, check=False).stdout

    assert "running" in said
    if user == "root":
        assert "FAIL" not in said
