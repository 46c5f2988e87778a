"""The file that a sandbox's runs outlive it in: the JSON that `/_sandbox/state` shows."""

import os
from pathlib import Path

import msgspec
import orjson

from syncd.sandbox.runs import Run, Runs, join


class _SavedRun(msgspec.Struct):
    name: str | None = None
    metadata: dict[str, msgspec.Raw] = {}


class _Saved(msgspec.Struct):
    runs: dict[str, _SavedRun]


def dump(runs: Runs) -> bytes:
    """All runs as `{"runs": {ID: {"name": …, "metadata": {…}}}}`, numbers as they were written."""
    shown = {
        run_id: {"name": run.name, "metadata": orjson.Fragment(join(run.metadata))}
        for run_id, run in runs
    }
    return orjson.dumps({"runs": shown})


def load(path: Path) -> dict[str, Run]:
    """The saved runs, none where there is no file; ValueError where it is not such a file."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder does not exist; make it or choose another file")
    try:
        text = msgspec.json.format(path.read_bytes(), indent=-1)
        saved = msgspec.json.decode(text, type=_Saved)
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a sandbox's state ({error}); move it away") from None
    return {
        run_id: Run(run.name, {key: bytes(value) for key, value in run.metadata.items()})
        for run_id, run in saved.runs.items()
    }


def save(path: Path, runs: Runs) -> None:
    """Replace the file in one step: a reader finds the old state or the new one."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(dump(runs))
    os.replace(draft, path)
