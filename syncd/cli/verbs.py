"""The operator's verbs: retry, discard, hold, release; pause and resume."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, TypeVar

import click

from syncd.cli.at_work import ENDING, by_daemon
from syncd.cli.door import Door, door, is_there, read_row
from syncd.cli.options import PATCH_ID, config_option, json_option, text
from syncd.cli.printing import many, plain, seconds_since
from syncd.cli.signals import Heard, hearing
from syncd.cli.status import stopped
from syncd.errors import SyncdError

F = TypeVar("F", bound=Callable[..., Any])
Verb = Literal["retry", "discard", "hold", "release"]
Operation = Callable[[Any], Any]  # a Store -> an awaitable

NAMED = 20  # patches whose state is looked at, to say why nothing was done
# What a daemon that an upgrade has not restarted yet does not tell.
_UNTOLD = {
    "newer_in_flight": 0,
    "waiting": 0,
    "stopped": None,
    "wanted": True,
    "asked": False,
    "asked_with": None,
    "daemon": {"state": "running", "reason": None, "probe": None},
}
_DONE = {"retry": "retried", "discard": "discarded", "hold": "held", "release": "released"}


def _selection(command: F) -> F:
    """Which patches, in one of four ways; the options of every verb."""
    for option in (
        config_option,
        json_option,
        click.option("--all", "everything", is_flag=True, help="All that the verb is for."),
        click.option("--reason", metavar="CODE", type=text, help="All parked for this reason."),
        click.option("--run", metavar="RUN_ID", type=text, help="All of this run."),
        click.argument("ids", metavar="[ID]…", nargs=-1, type=PATCH_ID),
    ):
        command = option(command)
    return command


_force = click.option("--force", is_flag=True, help="Send also what newer patches have set.")


@click.command("retry")
@_force
@_selection
def retry_command(**asked: Any) -> int:
    """Dead patches go back to pending; deferred ones are tried now.

    While the API is failing or refuses the credentials it is asked at once, with one of them, and
    the others go when it answers well. What newer patches of the same run have set since is left
    out, and named.
    """
    return _operate("retry", **asked)


@click.command("discard")
@_selection
def discard_command(**asked: Any) -> int:
    """These patches will never be delivered."""
    return _operate("discard", **asked)


@click.command("hold")
@_selection
def hold_command(**asked: Any) -> int:
    """Pending patches stay where they are until released."""
    return _operate("hold", **asked)


@click.command("release")
@_force
@_selection
def release_command(**asked: Any) -> int:
    """Held patches go back to pending.

    What newer patches of the same run have set since is left out, and named.
    """
    return _operate("release", **asked)


@click.command("pause")
@json_option
@config_option
def pause_command(*, as_json: bool, config_path: str | None) -> int:
    """Stop sending; intake goes on. Holds over restarts until `syncd resume`.

    While the database is not in its place a restart would end it: that is said, with exit code 1.
    """
    not_kept = _set_paused(door(config_path), paused=True).get("not_kept")
    told = {"paused": True, "not_kept": not_kept}
    click.echo(json.dumps(told) if as_json else "paused: nothing is sent")
    if not_kept is None:
        return 0
    click.echo(f"syncd: a restart ends the pause as things stand: {plain(not_kept)}", err=True)
    return 1


@click.command("resume")
@json_option
@config_option
def resume_command(*, as_json: bool, config_path: str | None) -> None:
    """Start sending again after `syncd pause`."""
    _set_paused(door(config_path), paused=False)
    click.echo(json.dumps({"paused": False}) if as_json else "resumed")


def _operate(
    verb: Verb,
    *,
    ids: tuple[int, ...],
    run: str | None,
    reason: str | None,
    everything: bool,
    as_json: bool,
    config_path: str | None,
    force: bool = False,
) -> int:
    """Do it, say what was touched. The exit code is 1 if a patch that was named was not."""
    match sum((bool(ids), run is not None, reason is not None, everything)):
        case 0:
            raise click.UsageError("say which patches: IDs, --run, --reason or --all")
        case 1:
            pass
        case _:
            raise click.UsageError("only one of IDs, --run, --reason and --all at a time")
    asked = {"ids": ids, "run": run, "reason": reason, "all": everything, "force": force}
    to = door(config_path)
    refusal = _refusal(to, ids[0]) if verb == "retry" and len(ids) == 1 and not as_json else None
    before, asked_at, heard = _before(to, ids), time.time(), Heard()
    tell = partial(by_daemon, to, verb, asked, heard)
    touched = _UNTOLD | _by_either(to, tell, partial(_by_file, to, verb, asked, heard))
    if touched["stopped"]:
        return _stopped(verb, touched, heard, as_json=as_json)
    click.echo(json.dumps(touched) if as_json else "\n".join(_said(verb, touched)))
    if refusal and touched["touched"]:
        click.echo(f"it was refused with {refusal}")
    for line in _left_alone(verb, before, asked_at, touched):
        click.echo(f"syncd: {line}", err=True)
    if run is not None and not _is_known(to, run, touched):
        click.echo(f"syncd: no patch for run {plain(run)}: look with `syncd list`", err=True)
        return 1
    return 1 if touched["touched"] + touched["superseded"] < len(set(ids)) else 0


def _stopped(verb: Verb, touched: dict[str, Any], heard: Heard, *, as_json: bool) -> int:
    """Say how far it came. The exit code is the signal's, if one has ended it."""
    why = "stopped" if heard.exit_code else plain(touched["stopped"])
    _, *more = _said(verb, touched)
    if as_json:
        click.echo(json.dumps(touched))
    elif more:
        click.echo("\n".join(more))
    done = f"{many(touched['touched'], 'patch')} {_DONE[verb]} so far"
    rest = "the rest is as it was" + ("" if heard.exit_code else ": try again")
    click.echo(f"syncd: {why}: {done}; {rest}", err=True)
    return heard.exit_code or 1


def _before(to: Door, ids: tuple[int, ...]) -> dict[int, dict[str, Any] | None]:
    """Each patch that is named, as it was before; None for one that there is not."""
    found = {patch_id: to.one("patch", {"id": patch_id}) for patch_id in ids[:NAMED]}
    return {
        patch_id: None if patch is None else read_row(patch) for patch_id, patch in found.items()
    }


def _left_alone(
    verb: Verb,
    before: dict[int, dict[str, Any] | None],
    asked_at: float,
    touched: dict[str, Any],
) -> Iterator[str]:
    """Why nothing was done to a patch that is named."""
    from syncd.store.verbs import STATES

    none = not touched["touched"] and not touched["in_flight"]
    tried = _tried(before, touched)
    for patch_id, patch in before.items():
        if patch is None:
            yield f"no patch {patch_id}: look with `syncd list`"
        elif patch["state"] not in (*STATES[verb], "in_flight"):
            yield f"patch {patch_id} is {patch['state']}: {verb} is not for it"
        elif verb != "retry" or patch["state"] != "pending" or patch_id == tried:
            continue
        elif none or (seconds_since(patch["next_attempt_at"], asked_at) or 0.0) >= 0:
            goes = _goes(touched["daemon"])
            yield (
                f"patch {patch_id} is pending: nothing to retry{goes}: see `syncd why {patch_id}`"
            )


def _tried(before: dict[int, dict[str, Any] | None], touched: dict[str, Any]) -> int | None:
    """The patch for which the API is asked at once: the oldest that is named of that run."""
    run = touched["asked_with"]
    its = (
        i for i, patch in before.items() if patch is not None and patch["workflow_run_id"] == run
    )
    return min(its, default=None)


def _goes(daemon: dict[str, Any]) -> str:
    match daemon["state"], daemon["reason"]:
        case "running", _:
            return ", it goes by itself"
        case "stopped", None:
            return ", it goes once the daemon runs"
        case "stopped", _:  # and has more to wait for
            return ", it goes once the daemon runs, after `syncd resume`"
        case _:
            return ""


def _is_known(to: Door, run: str, touched: dict[str, Any]) -> bool:
    """Whether there is, or was, a patch for that run."""
    if any(
        touched[count] for count in ("touched", "in_flight", "superseded", "unclear", "waiting")
    ):
        return True
    has_any = next(to.rows("patches", {"run": run, "limit": 1}), None) is not None
    return has_any or to.one("snapshot", {"run": run}) is not None


def _refusal(to: Door, patch_id: int) -> str | None:
    """Why a dead patch is dead: the same may happen again."""
    patch = read_row(to.one("patch", {"id": patch_id}) or b"{}")
    if patch.get("state") != "dead" or not patch["last_error"]:
        return None
    return f"{plain(patch['last_error']['code'])}: {plain(patch['last_error']['message'])}"


def _said(verb: Verb, touched: dict[str, Any]) -> Iterator[str]:
    yield f"{_DONE[verb]} {many(touched['touched'], 'patch')}"
    newer = touched["newer_in_flight"]
    if out := touched["in_flight"] - newer:
        yield f"{many(out, 'patch')} left alone: in flight now; try again"
    if newer:
        yield (
            f"{many(newer, 'patch')} left alone: newer patches with the same keys are in flight"
            " now; try again"
        )
    if touched["superseded"]:
        yield (
            f"{many(touched['superseded'], 'patch')} discarded instead:"
            " newer patches have set all of it"
        )
    if touched["unclear"]:
        yield (
            f"{many(touched['unclear'], 'patch')} left alone: what newer patches have set cannot be"
            " told from the metadata: --force sends all of it"
        )
    for patch_id, keys in touched["left_out"].items():
        named = ", ".join(map(plain, keys))
        yield f"patch {patch_id} goes without {named}: set by newer patches"
    if verb == "retry" and touched["wanted"] and not touched["stopped"]:
        yield from _outlook(touched)


def _outlook(touched: dict[str, Any]) -> Iterator[str]:
    """When it goes, where that is not at once."""
    daemon = touched["daemon"]
    blocked = daemon["state"] == "blocked"
    why = plain(daemon["reason"]) if blocked else "the API is failing"
    goes = "what waits goes when it answers well"
    if touched["asked"]:
        run = touched["asked_with"]
        yield f"{why}; it is asked at once{f', with {plain(run)}' if run else ''}, and {goes}"
    elif daemon["probe"] == "out":
        yield f"{why}; it is being asked at this moment, and {goes}"
    elif daemon["state"] not in ("running", "stopped"):
        yield f"nothing goes yet: {plain(daemon['reason'])}"


def _by_file(to: Door, verb: Verb, asked: dict[str, Any], heard: Heard) -> dict[str, Any]:
    from syncd.store import Selection, operate_in_steps
    from syncd.store.facts import PAUSED, fact

    chosen = Selection(asked["ids"], asked["run"], asked["reason"], asked["all"])

    async def operate(store: Any) -> tuple[Any, bool]:
        touched = await operate_in_steps(
            store,
            verb,
            chosen,
            lambda: nullcontext(()),
            force=asked["force"],
            stopped=lambda: "interrupted" if heard.exit_code else None,
        )
        if touched.stopped:  # perhaps by a store that cannot be read either
            return touched, False
        return touched, await store.read(lambda db: fact(db, PAUSED)) is not None

    with hearing(heard, *ENDING):
        touched, paused = _with_store(to, operate)
    return {
        "touched": touched.touched,
        "in_flight": touched.in_flight,
        "newer_in_flight": touched.newer_in_flight,
        "superseded": touched.superseded,
        "unclear": touched.unclear,
        "waiting": touched.waiting,
        "left_out": {str(patch_id): keys for patch_id, keys in touched.left_out.items()},
        "stopped": touched.stopped,
        "wanted": touched.first is not None,
        "asked": False,
        "asked_with": None,
        "daemon": {"state": "stopped", "reason": stopped(paused=paused)["reason"], "probe": None},
    }


def _set_paused(to: Door, *, paused: bool) -> dict[str, Any]:
    def by_file() -> dict[str, Any]:
        from syncd.store.facts import PAUSED

        value = "by an operator" if paused else None
        _with_store(to, lambda store: store.remember(PAUSED, value))
        return {}

    return _by_either(to, partial(to.tell, "/pause" if paused else "/resume"), by_file)


def _by_either(
    to: Door, tell: Callable[[], dict[str, Any] | None], by_file: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What the daemon answers; while it is down, do it in its place."""
    answer = tell()
    if answer is not None:
        return answer
    from syncd.store import StoreError, StoreInUse

    try:
        return by_file()
    except StoreError as error:
        # Whoever holds the lock may be a daemon that has only begun to start when it was asked.
        answer = tell() if isinstance(error, StoreInUse) else None
        if answer is not None:
            return answer
        # The likeliest reason is a daemon that holds the lock and listens elsewhere.
        raise SyncdError(f"no daemon listens on {to.paths.socket}, and {error}") from error


def _with_store(to: Door, operation: Operation) -> Any:
    """Do it in the daemon's place, while it is down, holding its lock."""
    from syncd.store import Store

    path = to.paths.store
    if not is_there(path):
        raise SyncdError(f"{path}: no database here yet: there is nothing to work on")

    async def work() -> Any:
        store = await Store.open(path, time.time)
        try:
            return await operation(store)
        finally:
            await store.close()

    return asyncio.run(work())
