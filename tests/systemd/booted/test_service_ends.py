"""The service that crashes, hangs or is stopped, under a real systemd."""

import time
from pathlib import Path

from installed import Installed, patch

THREADS = (Path(__file__).parents[1] / "threads.py").read_text()


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
