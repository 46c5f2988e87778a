"""Runs that are mended in vain: the requests that mend them get no answer, and may come late too.

Where objects are mended, older values are set on the way to the newest; so each time is left longer
than the one before it.
"""

from dataclasses import dataclass, field

from syncd.core.suspect import Suspect

MANY = 3  # times in a row that a human may want to know of
LONGEST = 8  # times the usual wait
FORGOTTEN_S = 900.0  # after the end of a wait: what is deferred meanwhile may take so long
MOST = 256  # runs that are remembered


@dataclass(frozen=True, slots=True)
class _Row:
    times: int
    newest_id: int
    """Of the patches that went again last."""
    not_before: float


@dataclass(slots=True)
class Undone:
    """How often each run was mended in a row. Instants are seconds on one steady clock."""

    _rows: dict[str, _Row] = field(default_factory=dict)

    def mended(self, suspect: Suspect, newest_id: int, now: float, usual_s: float) -> None:
        """Patches of it up to this one go again. `usual_s` is how long a request may be late."""
        row = self._row(suspect)
        times = 1 if row is None else row.times + 1
        wait_s = usual_s * min(LONGEST, 2 ** min(times - 1, LONGEST))
        self._rows.pop(suspect.run, None)
        if len(self._rows) >= MOST:
            del self._rows[next(iter(self._rows))]
        self._rows[suspect.run] = _Row(times, newest_id, now + wait_s)

    def end(self, run: str) -> None:
        """It is as it should be, or gone."""
        self._rows.pop(run, None)

    def wait_s(self, suspect: Suspect, now: float) -> float:
        """How long to leave it yet before it is looked at again."""
        row = self._row(suspect)
        return 0.0 if row is None else max(0.0, row.not_before - now)

    def trouble(self, now: float) -> str | None:
        """What does not get done, in a line."""
        lately = [
            (row.times, run)
            for run, row in self._rows.items()
            if row.times >= MANY and now < row.not_before + FORGOTTEN_S
        ]
        if not lately:
            return None
        times, run = max(lately)
        others = f", and others alike: {len(lately) - 1}" if len(lately) > 1 else ""
        return (
            f"{run} was sent again {times} times in a row{others}; requests without an answer may"
            " have undone it each time: raise api.timeout_s if the API is only slow"
        )

    def _row(self, suspect: Suspect) -> _Row | None:
        """None if what is suspected now was not sent to mend the run."""
        row = self._rows.get(suspect.run)
        return row if row is not None and suspect.since_id <= row.newest_id else None
