"""What is undone again and again is left longer each time, and told."""

from syncd.core.suspect import Suspect
from syncd.core.undone import FORGOTTEN_S, LONGEST, MANY, MOST, Undone

USUAL_S = 60.0


def of(run: str, since_id: int) -> Suspect:
    return Suspect(run, since_id, since_id, ())


def mended(undone: Undone, times: int, run: str = "run") -> list[float]:
    """The waits after each of so many times in a row, all at one instant."""
    waits = []
    for _ in range(times):
        undone.mended(of(run, 5), 7, 0.0, USUAL_S)
        waits.append(undone.wait_s(of(run, 5), 0.0) / USUAL_S)
    return waits


def test_each_time_is_left_longer_up_to_a_bound() -> None:
    assert mended(Undone(), 2000) == [1, 2, 4] + [LONGEST] * 1997


def test_a_request_for_newer_patches_is_another_matter() -> None:
    undone = Undone()
    mended(undone, 3)

    assert undone.wait_s(of("run", 8), 0.0) == 0.0
    undone.mended(of("run", 8), 9, 0.0, USUAL_S)
    assert undone.wait_s(of("run", 8), 0.0) == USUAL_S


def test_the_run_that_was_mended_most_is_named() -> None:
    undone = Undone()
    mended(undone, MANY - 1)
    assert undone.trouble(0.0) is None

    mended(undone, MANY, "once more")
    mended(undone, 2)

    told = undone.trouble(0.0) or ""
    assert told.startswith(f"run was sent again {MANY + 1} times in a row, and others alike: 1; ")
    assert undone.trouble(LONGEST * USUAL_S + FORGOTTEN_S) is None
    undone.end("run")
    assert (undone.trouble(0.0) or "").startswith(
        f"once more was sent again {MANY} times in a row;"
    )


def test_there_is_a_bound_to_what_is_remembered() -> None:
    undone = Undone()
    for number in range(MOST + 1):
        mended(undone, 1, f"run {number}")

    assert undone.wait_s(of("run 0", 5), 0.0) == 0.0
    assert undone.wait_s(of("run 1", 5), 0.0) == USUAL_S
