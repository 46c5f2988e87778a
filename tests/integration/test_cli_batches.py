"""Files handed in while the daemon runs: by the spool or a command, to their end or not."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from commands import begun, dying_unheard, lines
from processes import Daemon, Sandbox, environment, start_daemon, syncd

from syncd.store.accept import ABANDONED_S, open_batch
from syncd.store.schema import open_writer


def test_a_batch_is_awaited_by_its_name(daemon: Daemon) -> None:
    """From the moment the file is in place, before it is taken in."""
    daemon.drop("drop.csv", "workflow_run_id,name\nbatch_1,x\nbatch_2,y\n")

    waited = daemon.syncd("wait", "--batch", "drop.csv", "--timeout", "10")
    batches = lines(daemon.syncd("batches", "--json").stdout)
    listed = lines(daemon.syncd("list", "--json", "--batch", "drop.csv").stdout)

    (batch,) = [batch for batch in batches if batch["name"] == "drop.csv"]
    assert waited.returncode == 0
    assert (batch["accepted"], batch["delivered"], batch["waiting"]) == (2, 2, 0)
    assert {row["workflow_run_id"] for row in listed} == {"batch_1", "batch_2"}


def test_a_batch_of_which_much_is_held_will_not_arrive_by_itself(daemon: Daemon) -> None:
    """However much: what is held is counted, not listed."""
    daemon.syncd("pause")
    text = "".join(f'{{"workflow_run_id": "held_{n}", "name": "x"}}\n' for n in range(1500))
    daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=text)
    daemon.syncd("hold", "--all")
    daemon.syncd("resume")

    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "10")
    daemon.syncd("discard", "--all")

    assert waited.returncode == 1, waited.stderr
    assert "is held by an operator" in waited.stdout
    assert waited.stdout.endswith("\nand 1,480 patches more: look with `syncd list`\n")


def test_a_batch_with_rejected_lines_is_trouble(daemon: Daemon) -> None:
    """What was delivered does not hide what was not."""
    daemon.drop("half.csv", "workflow_run_id,name\nhalf_1,x\nhalf_2,\n")

    waited = daemon.syncd("wait", "--batch", "half.csv", "--timeout", "10")

    assert waited.returncode == 1
    assert waited.stdout.startswith("1 line rejected: see ")


def test_a_file_rejected_as_a_whole_is_trouble(daemon: Daemon) -> None:
    """There is nothing to wait for."""
    daemon.drop("whole.json", "[")

    waited = daemon.syncd("wait", "--batch", "whole.json", "--timeout", "10")
    (batch,) = [
        one
        for one in lines(daemon.syncd("batches", "--json").stdout)
        if one["name"] == "whole.json"
    ]
    table = daemon.syncd("batches").stdout.splitlines()

    assert batch["refused"] == "the JSON text ends too early: the file is truncated"
    assert next(row for row in table if row.startswith("whole.json")).split()[1] == "refused"
    assert waited.returncode == 1
    assert "whole.json was rejected as a whole" in waited.stdout


def test_a_file_is_handed_in_over_the_socket(daemon: Daemon) -> None:
    """In several requests, metadata over several lines included, as one batch."""
    content = json.dumps(
        [{"workflow_run_id": f"sock_{n % 40}", "metadata": {"n": n}} for n in range(1200)],
        indent=1,
    )

    found = daemon.syncd("enqueue", "--file", "-", "--format", "json", input=content)
    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")
    runs = daemon.syncd("runs", "--json", "--where", "n=1199", "--status", "PROCESSED")

    assert found.stdout == "accepted 1,200 patches as batch stdin\n"
    assert waited.returncode == 0
    assert [run["workflow_run_id"] for run in lines(runs.stdout)] == ["sock_39"]


@contextmanager
def handing_in(daemon: Daemon, run: str) -> Iterator[subprocess.Popen[bytes]]:
    """An `enqueue --file -` in the middle of what it is given, its batch open."""
    before = {row["id"] for row in lines(daemon.syncd("batches", "--json").stdout)}
    command = (sys.executable, "-m", "syncd", "enqueue", "--file", "-", "--format", "jsonl")
    env = environment(daemon.folder, **daemon.environment)
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as enqueue:
        try:
            assert enqueue.stdin is not None
            line = f'{{"workflow_run_id":"{run}","name":"{"x" * 1000}"}}\n'
            enqueue.stdin.write(line.encode() * 1200)
            enqueue.stdin.flush()
            while not any(
                row["accepted"] and row["id"] not in before
                for row in lines(daemon.syncd("batches", "--json").stdout)
            ):
                assert enqueue.poll() is None
            yield enqueue
        finally:
            enqueue.kill()


def test_a_batch_whose_command_was_killed_is_not_awaited_for_ever(daemon: Daemon) -> None:
    with handing_in(daemon, "cut_1") as enqueue:
        enqueue.kill()
        enqueue.wait()

        waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")

    assert waited.returncode == 1
    assert waited.stdout == (
        "the rest of stdin was not handed in: `syncd enqueue` has ended before the file did\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_whose_command_was_interrupted_says_so(
    daemon: Daemon, number: signal.Signals
) -> None:
    with handing_in(daemon, "stopped_1") as enqueue:
        enqueue.send_signal(number)
        assert enqueue.wait() == 128 + number

    waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")
    heads, newest, *_ = daemon.syncd("batches", "--limit", "1").stdout.splitlines()
    assert waited.returncode == 1
    assert waited.stdout == "the rest of stdin was not handed in: `syncd enqueue` was interrupted\n"
    assert newest[: heads.index("SETTLED") + len("SETTLED")].endswith(" cut, 100%")


def test_nor_is_one_whose_command_was_killed_while_no_daemon_ran(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nobody has heard of its end: that nothing has come to it for long must do."""
    daemon = Daemon(tmp_path, sandbox.url)
    daemon.database.parent.mkdir(parents=True)
    with closing(open_writer(daemon.database)) as db:
        open_batch(db, "stdin", "enqueue", time.time() - ABANDONED_S - 1.0)
        open_batch(db, "later", "enqueue", time.time() - ABANDONED_S / 3)
        open_batch(db, "fresh", "enqueue", time.time() + 60.0)

    with daemon.start():
        waited = daemon.syncd("wait", "--batch", "stdin", "--timeout", "15")
        later = daemon.syncd("wait", "--batch", "later", "--timeout", "0.5")
        fresh = daemon.syncd("wait", "--batch", "fresh", "--timeout", "0.5")

    told = (
        "syncd: no command is known to hand in the rest of later: unless more comes, it is given up"
        f" {ABANDONED_S:.0f} s after its last sign of life, which was "
    )
    assert (later.returncode, fresh.returncode) == (124, 124)
    assert later.stderr.startswith(told)
    assert "\n" not in later.stderr[len(told) : later.stderr.index(" ago\n")]
    assert fresh.stderr == "syncd: the time is up: 1 file to go\n"
    assert waited.returncode == 1
    assert "`syncd enqueue` has ended before the file did" in waited.stdout


def test_files_of_one_name_at_once_are_batches_of_their_own(daemon: Daemon) -> None:
    """The first to end closes none but its own."""
    with handing_in(daemon, "twice_1") as first:
        one = '{"workflow_run_id":"twice_2","name":"x"}\n'
        daemon.syncd("enqueue", "--file", "-", "--format", "jsonl", input=one)
        second, still_open, *_ = lines(daemon.syncd("batches", "--json").stdout)
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait() == 0
    _, whole, *_ = lines(daemon.syncd("batches", "--json").stdout)

    assert (second["accepted"], second["closed_at"] is None) == (1, False)
    assert still_open["closed_at"] is None
    assert still_open["unattended_since"] is None
    assert whole["id"] == still_open["id"]
    assert (whole["accepted"], whole["closed_at"] is None) == (1200, False)
    assert whole["refused"] is None


def test_the_socket_records_what_was_rejected(daemon: Daemon) -> None:
    """A batch handed in by `enqueue` tells of it as one from the spool does."""
    content = '{"workflow_run_id":"part_1","name":"x"}\nnonsense\n'
    (daemon.folder / "part.jsonl").write_text(content)

    daemon.syncd("enqueue", "--file", str(daemon.folder / "part.jsonl"))
    waited = daemon.syncd("wait", "--batch", "part.jsonl", "--timeout", "10")
    batches = lines(daemon.syncd("batches", "--json").stdout)

    (batch,) = [batch for batch in batches if batch["name"] == "part.jsonl"]
    assert batch["rejected"] == 1
    assert waited.returncode == 1
    assert waited.stdout == "1 line rejected: `syncd enqueue` has named them\n"


def test_a_command_whose_daemon_was_killed_says_where_to_go_on(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """What is in is known to the patch, and nobody waits for its batch: not even for a daemon."""
    content = [f'{{"workflow_run_id":"killed","name":"{n} {"x" * 350}"}}\n' for n in range(1424)]
    enqueue = ("enqueue", "--file", "-", "--format", "jsonl", "--json")
    with start_daemon(tmp_path, sandbox.url) as daemon:
        daemon.syncd("pause")
        with begun(daemon, *enqueue) as command:
            assert command.stdin is not None
            command.stdin.writelines(content[:1024])
            command.stdin.flush()
            while not any(
                row["accepted"] for row in lines(daemon.syncd("batches", "--json").stdout)
            ):
                assert command.poll() is None
            daemon.running.signal(signal.SIGSTOP)  # type: ignore[union-attr]
            command.stdin.writelines(content[1024:])
            command.stdin.close()
            daemon.kill()
            assert command.stdout is not None
            assert command.stderr is not None
            told, said = json.loads(command.stdout.read()), command.stderr.read()
        (cut,) = lines(daemon.syncd("batches", "--json").stdout)
        daemon.start()
        rest = daemon.syncd(*enqueue, input="".join(content[told["next_line"] - 1 :]))
        names = [name for (name,) in daemon.rows("SELECT name FROM outbox ORDER BY id")]

    assert command.returncode == 1
    assert said.count("\n") == 1
    assert f"{told['accepted']:,} patches accepted: go on from line {told['next_line']})" in said
    assert "try again" not in said
    assert (cut["accepted"], cut["closed_at"] is not None) == (told["accepted"], True)
    assert cut["refused"] == told["refused"]
    assert rest.returncode == 0
    assert names == [json.loads(line)["name"] for line in content]


def test_rejected_lines_of_a_part_whose_answer_was_lost_are_named(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Who goes on behind it never meets them again. The rest is counted, as of a whole file."""
    good = '{"workflow_run_id":"unheard","name":"x"}\n'
    enqueue = ("enqueue", "--file", "-", "--format", "jsonl")
    found = []
    for how in ((), ("--json",)):
        with (
            start_daemon(tmp_path, sandbox.url) as daemon,
            dying_unheard(daemon) as path,
        ):
            variables = {**daemon.environment, "SYNCD_CONTROL__SOCKET": str(path)}
            text = good + "nonsense\n" * 30 + good
            found.append(syncd(*enqueue, *how, folder=tmp_path, input=text, **variables))
    shown, told = found
    counted = [batch["rejected"] for batch in lines(daemon.syncd("batches", "--json").stdout)]

    *named, more, end = shown.stderr.splitlines()
    assert (shown.returncode, told.returncode) == (1, 1)
    assert [line.split(":")[1] for line in named] == [str(n) for n in range(2, 22)]
    assert more == "… and 10 lines more"
    for last in (end, told.stderr.strip()):
        assert last.endswith("(2 patches accepted, 30 lines rejected: go on from line 33)")
    as_json = json.loads(told.stdout)
    assert len(as_json["rejected"]) == as_json["rejected_count"] == 30
    assert counted == [30, 30]
