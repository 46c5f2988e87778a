"""`syncd enqueue` while the daemon is down: one patch, many from a file, and what is none."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, environment, syncd


def rows(folder: Path) -> list[dict[str, object]]:
    """What is in the outbox, oldest first."""
    found = syncd("list", "--json", "--limit", "5000", folder=folder).stdout
    return sorted((json.loads(line) for line in found.splitlines()), key=lambda row: row["id"])


def test_one_patch_from_its_arguments(tmp_path: Path) -> None:
    """Each --set is JSON where it reads as JSON, else a string, and goes on top of --metadata."""
    found = syncd(
        "enqueue", "run_1", "--name", "n", "--metadata", '{"a": 0, "b": true}',
        "--set", "a=1.50", "--set", "c=two words", "--set", 'd={"e": [1]}', "--set", "f=",
        "--priority", "3", folder=tmp_path,
    )  # fmt: skip

    (row,) = rows(tmp_path)
    assert found.stdout == "accepted patch 1\n"
    assert row["workflow_run_id"] == "run_1"
    assert row["name"] == "n"
    assert row["metadata"] == {"a": 1.5, "b": True, "c": "two words", "d": {"e": [1]}, "f": ""}
    assert row["priority"] == 3


def test_numbers_stay_as_they_were_typed(tmp_path: Path) -> None:
    """1.50 is not 1.5 to whoever compares texts."""
    syncd("enqueue", "run_1", "--set", "a=1.50", "--set", "b=1E2", folder=tmp_path)

    listed = syncd("list", "--json", folder=tmp_path).stdout

    assert '"metadata":{"a":1.50,"b":1E2}' in listed


def test_a_key_that_is_set_twice_is_wrong_usage(tmp_path: Path) -> None:
    """Nobody means that: one of the two is mistyped, and which one cannot be told."""
    found = syncd(
        "enqueue", "run_1", "--set", "a=1", "--set", "b=1", "--set", "a=2", folder=tmp_path
    )

    assert found.returncode == 2
    assert "--set a: is there twice" in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("value", ["[a, b]", '{"a": 1', '"open', "1e999"])
def test_what_looks_like_json_and_is_not_is_told(tmp_path: Path, value: str) -> None:
    found = syncd("enqueue", "run_1", "--set", f"k={value}", folder=tmp_path)

    assert found.stdout == "accepted patch 1\n"
    assert found.stderr == f"syncd: --set k: not JSON, so it is sent as the text {value!r}\n"
    assert rows(tmp_path)[0]["metadata"] == {"k": value}


@pytest.mark.parametrize("value", ["007", "two words", "1.", "-", "nan", "2026-11-23"])
def test_a_plain_text_needs_no_note(tmp_path: Path, value: str) -> None:
    assert syncd("enqueue", "run_1", "--set", f"k={value}", folder=tmp_path).stderr == ""


def test_a_known_key_is_skipped(tmp_path: Path) -> None:
    """A second patch with the same key is no error and no patch."""
    once = ("enqueue", "run_1", "--name", "n", "--key", "k")
    syncd(*once, folder=tmp_path)

    again = syncd(*once, folder=tmp_path)
    as_json = syncd(*once, "--json", folder=tmp_path)

    assert again.returncode == 0
    assert again.stdout == "skipped: a patch with the key k is already there\n"
    assert json.loads(as_json.stdout) == {
        "accepted": 0,
        "duplicates": 1,
        "first_id": None,
        "last_id": None,
    }
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"workflow_run_id": "r1", "name": "x"},\n {"workflow_run_id": "r2",'
                   ' "metadata": {"a":\n 1.0}}]'),
        ("a.jsonl", '{"workflow_run_id":"r1","name":"x"}\n'
                    '{"workflow_run_id":"r2","metadata":{"a":1.0}}\n'),
        ("a.csv", "workflow_run_id,name,metadata:json.a\nr1,x,\nr2,,1.0\n"),
        ("a.csv.gz", "workflow_run_id,name,metadata:json.a\nr1,x,\nr2,,1.0\n"),
    ],
)  # fmt: skip
def test_a_file_of_each_format(tmp_path: Path, name: str, content: str) -> None:
    """Also compressed; the batch is called as the file."""
    path = tmp_path / name
    data = content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    found = syncd("enqueue", "--file", path, folder=tmp_path)

    assert found.stdout == f"accepted 2 patches as batch {name}\n"
    assert found.returncode == 0
    assert [(row["workflow_run_id"], row["batch"]) for row in rows(tmp_path)] == [
        ("r1", name),
        ("r2", name),
    ]


def test_lines_that_are_no_patches_are_named(tmp_path: Path) -> None:
    """The good ones are taken, the others are told with line and reason, and the exit code is 1."""
    content = '{"workflow_run_id":"r1","name":"x"}\nnonsense\n{"name":"y"}\n'

    found = syncd("enqueue", "--file", "-", "--format", "jsonl", folder=tmp_path, input=content)

    assert found.returncode == 1
    assert found.stdout == "accepted 1 patch as batch stdin, rejected 2 lines\n"
    told = found.stderr.splitlines()
    assert told[0].startswith("stdin:2: not valid JSON")
    assert told[1] == "stdin:3: workflow_run_id is missing"
    batches = syncd("batches", "--json", folder=tmp_path).stdout
    assert json.loads(batches)["rejected"] == 2


LONG_NAME = "é" * 5121
"""Two bytes too long."""


def test_a_name_that_is_too_long_is_wrong_usage(tmp_path: Path) -> None:
    found = syncd("enqueue", "run_1", "--name", LONG_NAME, folder=tmp_path)

    assert found.returncode == 2
    assert "name must be at most 10240 bytes" in found.stderr
    assert rows(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "before", "line", "number"),
    [
        ("a.jsonl", "", '{"workflow_run_id":"%s","name":"%s"}\n', 2),
        ("a.csv", "workflow_run_id,name\n", "%s,%s\n", 3),
    ],
    ids=["jsonl", "csv"],
)
def test_a_name_that_is_too_long_stops_no_other_line_of_its_file(
    tmp_path: Path, name: str, before: str, line: str, number: int
) -> None:
    patches = ("r1", "x" * 10_240), ("r2", LONG_NAME), ("r3", LONG_NAME[1:])
    (tmp_path / name).write_text(before + "".join(line % patch for patch in patches))

    found = syncd("enqueue", "--file", tmp_path / name, folder=tmp_path)

    assert found.returncode == 1
    assert found.stdout == f"accepted 2 patches as batch {name}, rejected 1 line\n"
    assert found.stderr == f"{name}:{number}: name must be at most 10240 bytes\n"
    assert [row["workflow_run_id"] for row in rows(tmp_path)] == ["r1", "r3"]


@pytest.mark.parametrize(("rejected", "kept"), [(30, 30), (1010, 1000)])
def test_many_rejected_lines_do_not_flood_the_terminal(
    tmp_path: Path, rejected: int, kept: int
) -> None:
    """Twenty are shown and the rest counted; --json has a thousand."""
    content = "nonsense\n" * rejected

    shown = syncd("enqueue", "--file", "-", "--format", "jsonl", folder=tmp_path, input=content)
    whole = syncd(
        "enqueue", "--file", "-", "--format", "jsonl", "--json", folder=tmp_path, input=content
    )

    assert len(shown.stderr.splitlines()) == 21
    assert shown.stderr.splitlines()[-1] == f"… and {rejected - 20} lines more"
    counts = json.loads(whole.stdout)
    assert (len(counts["rejected"]), counts["rejected_count"]) == (kept, rejected)
    assert counts["rejected"][0]["line"] == 1
    assert whole.stderr == ""


def test_a_truncated_array_is_refused_whole(tmp_path: Path) -> None:
    """An array is verified before its first patch is taken, also when it comes through a pipe."""
    content = '[{"workflow_run_id":"r1","name":"x"},'

    found = syncd("enqueue", "--file", "-", "--format", "json", folder=tmp_path, input=content)

    assert found.returncode == 1
    assert found.stderr.startswith("syncd: stdin: ")
    assert "(nothing was accepted)" in found.stderr
    assert rows(tmp_path) == []


def test_a_file_that_breaks_off_is_no_batch_to_wait_for(tmp_path: Path) -> None:
    """What was handed in until then stays, and the command says how much that is."""
    line = '{"workflow_run_id": "r", "name": "%s"}\n' % ("x" * 1000)

    broken = syncd(
        *("enqueue", "--file", "-", "--format", "jsonl"),
        folder=tmp_path,
        input=line * 2000,
        SYNCD_SPOOL__MAX_FILE_BYTES="1048576",
    )
    (batch,) = map(json.loads, syncd("batches", "--json", folder=tmp_path).stdout.splitlines())

    assert broken.returncode == 1
    assert "raise spool.max_file_bytes" in broken.stderr
    assert f"({batch['accepted']:,} patches accepted" in broken.stderr
    assert batch["closed_at"] is not None
    assert "raise spool.max_file_bytes" in batch["refused"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_is_closed_with_its_reason_while_the_daemon_is_down(
    tmp_path: Path, number: signal.Signals
) -> None:
    """However often it is told to end, it says once how far it is, to programs too."""
    command = (sys.executable, "-m", "syncd", "enqueue", "--file", "-", "--format", "jsonl")
    line = '{"workflow_run_id": "r", "name": "%s"}\n' % ("x" * 1000)
    with subprocess.Popen(
        (*command, "--json"),
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as enqueue:
        assert enqueue.stdin is not None
        assert enqueue.stdout is not None
        assert enqueue.stderr is not None
        enqueue.stdin.write(line * 1200)
        enqueue.stdin.flush()
        while not syncd("batches", "--json", folder=tmp_path).stdout:
            assert enqueue.poll() is None
        deadline = time.monotonic() + PATIENCE_S
        while enqueue.poll() is None:
            assert time.monotonic() < deadline
            enqueue.send_signal(number)
        told, said = json.loads(enqueue.stdout.read()), enqueue.stderr.read()
    (batch,) = map(json.loads, syncd("batches", "--json", folder=tmp_path).stdout.splitlines())

    accepted = batch["accepted"]
    assert enqueue.returncode == 128 + number
    assert batch["closed_at"] is not None
    assert batch["refused"] == told["refused"] == "`syncd enqueue` was interrupted"
    assert (told["accepted"], told["next_line"], told["perhaps"]) == (accepted, accepted + 1, None)
    until = f"{accepted:,} patches accepted: go on from line {accepted + 1}"
    assert said == f"syncd: stdin: stopped ({until if accepted else 'nothing was accepted'})\n"


def test_a_large_file_arrives_in_its_order(tmp_path: Path) -> None:
    """More patches than fit into one transaction, long ones among them."""
    content = "".join(
        json.dumps({"workflow_run_id": f"r{n}", "metadata": {"text": "x" * (n % 7 * 1000)}}) + "\n"
        for n in range(1300)
    )

    found = syncd("enqueue", "--file", "-", "--format", "jsonl", folder=tmp_path, input=content)

    assert found.stdout == "accepted 1,300 patches as batch stdin\n"
    assert [row["workflow_run_id"] for row in rows(tmp_path)] == [f"r{n}" for n in range(1300)]


def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    """As `syncd enqueue --file <(producer)` makes one."""
    fifo = tmp_path / "a.json"
    os.mkfifo(fifo)
    producer = threading.Thread(
        target=lambda: fifo.write_text('[{"workflow_run_id":"r1","name":"x"}]')
    )
    producer.start()

    found = syncd("enqueue", "--file", fifo, folder=tmp_path)
    producer.join()

    assert found.stdout == "accepted 1 patch as batch a.json\n"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing.csv", "No such file or directory"),
        ("no/such/folder/a.csv", "No such file or directory"),
        (".csv", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path, path: str, why: str) -> None:
    """What, where as it was given, why."""
    (tmp_path / ".csv").mkdir()

    found = syncd("enqueue", "--file", path, "--format", "csv", folder=tmp_path)

    assert found.returncode == 1
    assert found.stderr == f"syncd: {path}: cannot be opened: {why} (nothing was accepted)\n"


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, form: str) -> None:
    found = syncd("enqueue", "--file", "/proc/self/mem", "--format", form, folder=tmp_path)

    assert found.returncode == 1
    why = "cannot be read: Input/output error: hand in a copy"
    assert found.stderr == f"syncd: /proc/self/mem: {why} (nothing was accepted)\n"


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [
        (
            "0<&-",
            1,
            "syncd: stdin: is closed: pipe the patches in, or name their file"
            " (nothing was accepted)\n",
        ),
        ("2>&-", 0, ""),
        ("0<&- 1>&- 2>&-", 1, ""),
    ],
)
def test_a_stream_that_is_closed_is_no_mistake_of_ours(
    tmp_path: Path, closed: str, code: int, said: str
) -> None:
    """A shell's `<&-`, or a daemon that starts us. Patches out of nowhere are not none at all."""
    found = subprocess.run(
        [
            *("sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-m", "syncd"),
            *("enqueue", "--file", "-", "--format", "jsonl"),
        ],
        env=environment(tmp_path),
        input='{"workflow_run_id":"r","name":"x"}\n' if code == 0 else None,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (found.returncode, found.stderr) == (code, said)
