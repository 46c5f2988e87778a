"""The service as it is shipped, under a real systemd, with every setting of its sandbox on."""

import json
import time

import pytest
from installed import SETTINGS, Installed, patch

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
