"""From dropped files to rows of the outbox, in every format; what is refused whole."""

import gzip
import json
import os
from pathlib import Path

from taking import (
    GOOD,
    FragileStore,
    batches,
    drop,
    intake_of,
    line,
    row,
    rows_of,
    running,
    take_in,
    tree,
)

from syncd.spool import Spool

# Every format


async def test_files_of_every_format_become_rows(store: FragileStore, spool: Spool) -> None:
    contents = {
        "1.json": f"[{line(1)}, {line(2)}]",
        "2.jsonl": f"{line(3)}\n{line(4)}\n",
        "3.ndjson": line(5),
        "4.csv": "workflow_run_id,name\nr6,n6\nr7,n7\n",
        "5.json.gz": line(8),
        "6.jsonl.gz": f"{line(9)}\n",
        "7.csv.gz": "name,workflow_run_id\nn10,r10\n",
    }
    for n, (name, text) in enumerate(contents.items()):
        drop(spool, name, text)
        os.utime(spool.incoming / name, (n, n))

    await take_in(store, spool, *contents)

    assert rows_of(store) == [row(n) for n in range(1, 11)]
    assert sorted(path.name for path in spool.done.iterdir()) == list(contents)
    assert [batch[:2] for batch in batches(store)] == [
        *[("1.json", 2), ("2.jsonl", 2), ("3.ndjson", 1), ("4.csv", 2)],
        *[("5.json.gz", 1), ("6.jsonl.gz", 1), ("7.csv.gz", 1)],
    ]
    assert spool.waiting() == spool.rejected() == 0


async def test_files_that_come_later_are_noticed(store: FragileStore, spool: Spool) -> None:
    async with running(intake_of(store, spool), spool) as moves:
        for n in range(3):
            drop(spool, "a.jsonl", line(n))
            await moves.until("a.jsonl" if n == 0 else f"a.{n}.jsonl")

        with (spool.incoming / "b.csv").open("w") as writer:
            writer.write("workflow_run_id,name\nr3,")
            writer.flush()
            drop(spool, "c.jsonl", line(4))
            await moves.until("c.jsonl")
            assert (spool.incoming / "b.csv").exists()
            writer.write("n3")
        await moves.until("b.csv")

    assert rows_of(store) == [row(n) for n in (0, 1, 2, 4, 3)]


async def test_numbers_reach_the_outbox_as_they_were_written(
    store: FragileStore, spool: Spool
) -> None:
    metadata = '{"big":123456789012345678901234567890,"f":1.10,"e":1E5,"z":-0.0}'
    drop(spool, "a.jsonl", f'{{"workflow_run_id":"r","metadata":{metadata}}}')

    await take_in(store, spool, "a.jsonl")

    assert rows_of(store) == [("r", None, metadata)]


async def test_lines_that_are_no_patches_go_to_a_file_of_their_own(
    store: FragileStore, spool: Spool
) -> None:
    drop(spool, "a.jsonl", f"{line(1)}\n{{oops\n{line(2)}\n{line(3, nmae=1)}\n")

    await take_in(store, spool, "a.jsonl")

    rejected = tree(spool.path / "rejected")
    lines = [json.loads(each) for each in rejected.pop("a.jsonl.rejected.jsonl").splitlines()]
    assert rows_of(store) == [row(1), row(2)]
    assert [(each["line"], each["input"]) for each in lines] == [
        (2, "{oops"),
        (4, line(3, nmae=1)),
    ]
    assert lines[1]["reason"] == 'unknown field "nmae": did you mean "name"?'
    assert rejected == {}
    assert batches(store) == [("a.jsonl", 2, 0, 2, True)]


async def test_known_keys_are_counted_as_duplicates(store: FragileStore, spool: Spool) -> None:
    drop(spool, "a.jsonl", f"{line(1, idempotency_key='k')}\n{line(2, idempotency_key='k')}\n")

    await take_in(store, spool, "a.jsonl")

    assert rows_of(store) == [row(1)]
    assert batches(store) == [("a.jsonl", 1, 1, 0, True)]


# What is refused whole
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "notes.txt": (b"hello", "another kind"),
    "noname": (b"hello", "another kind"),
    "cut.json": (f"[{line(7)},".encode(), "truncated"),
    "nan.json": (b'[{"workflow_run_id":"r","metadata":{"a":NaN}}]', "not valid JSON"),
    "deep.json": (b"[" * 200_000, "truncated"),
    "wide.jsonl": (GOOD.encode("utf-16"), "UTF-8"),
    "bare.csv": (b"run,title\n1,2\n", "unknown column"),
    "empty.csv": (b"", "empty"),
}


async def test_a_file_that_cannot_be_read_lies_whole_beside_its_reason(
    store: FragileStore, spool: Spool
) -> None:
    for name, (data, _) in UNREADABLE.items():
        drop(spool, name, data)
    for name, data in (("cut.json.gz", gzip.compress(b"x" * 99)[:-9]), ("bad.csv.gz", b"plain")):
        (spool.incoming / f".{name}").write_bytes(data)
        (spool.incoming / f".{name}").rename(spool.incoming / name)
    drop(spool, "z.jsonl", GOOD)

    names = [*UNREADABLE, "cut.json.gz", "bad.csv.gz"]
    await take_in(store, spool, *names, "z.jsonl")

    found = tree(spool.path / "rejected")
    assert rows_of(store) == [row(1)]
    assert sorted(found) == sorted([*names, *(f"{name}.reason.txt" for name in names)])
    for name, (data, words) in UNREADABLE.items():
        assert words in found[f"{name}.reason.txt"], name
        assert (spool.path / "rejected" / name).read_bytes() == data
    assert "truncated" in found["cut.json.gz.reason.txt"]
    assert "not a gzip file" in found["bad.csv.gz.reason.txt"]


async def test_what_is_no_regular_file_is_moved_away_unread(
    store: FragileStore, spool: Spool
) -> None:
    secret = spool.path / "secret.jsonl"
    secret.write_text(GOOD)
    (spool.incoming / "link.jsonl").symlink_to(secret)
    (spool.incoming / "folder.jsonl").mkdir()
    os.mkfifo(spool.incoming / "fifo.jsonl")
    os.link(secret, spool.incoming / "hard.jsonl")

    await take_in(store, spool, "hard.jsonl")

    assert rows_of(store) == []
    assert list(spool.incoming.iterdir()) == []
    assert {path.name for path in (spool.path / "rejected").iterdir()} == {
        f"{name}.jsonl{ending}"
        for name in ("link", "folder", "fifo", "hard")
        for ending in ("", ".reason.txt")
    }


async def test_files_that_are_too_large_are_refused_before_a_patch_is_taken(
    tmp_path: Path, store: FragileStore
) -> None:
    spool = Spool(tmp_path / "spool", 0.05, 1 << 20)
    spool.prepare()
    drop(spool, "bomb.jsonl.gz", GOOD.encode() + b"\n" * (2 << 20))
    drop(spool, "large.jsonl", GOOD.encode() + b"\n" * (1 << 20))

    await take_in(store, spool, "bomb.jsonl.gz", "large.jsonl")

    assert rows_of(store) == []
    reasons = [t for name, t in tree(spool.path / "rejected").items() if name.endswith(".txt")]
    assert all("max_file_bytes" in reason for reason in reasons)
    assert len(reasons) == 2
