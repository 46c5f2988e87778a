"""Runs refused alike one after the other: a few are bad patches, many are a wrong setting."""

from dataclasses import dataclass, field

from syncd.core.outcome import Trouble

MANY = 20


@dataclass(slots=True)
class Alike:
    """The runs, up to MANY, of the last refusals that had one status and code."""

    runs: set[str] = field(default_factory=set)
    status: int | None = None
    code: str = ""

    def add(self, run: str, trouble: Trouble) -> None:
        """A patch of the run, or all that waited for it, is refused."""
        if (trouble.status, trouble.code) != (self.status, self.code):
            self.status, self.code = trouble.status, trouble.code
            self.runs.clear()
        if len(self.runs) < MANY:
            self.runs.add(run)

    def end(self) -> None:
        """Something was delivered: the settings are right."""
        self.runs.clear()

    def trouble(self) -> str | None:
        """What looks wrong, in a line."""
        if len(self.runs) < MANY:
            return None
        return (
            f"at least {MANY} runs in a row were refused alike, HTTP {self.status} ({self.code}):"
            " check api.version and api.workspace_id (syncd check --online), then"
            f" syncd retry --reason {self.code}"
        )
