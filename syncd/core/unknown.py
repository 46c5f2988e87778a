"""Runs that the API does not know: one is somebody's mistake, all of them are a wrong setting."""

from dataclasses import dataclass, field

from syncd.core.outcome import Trouble

MANY = 10


@dataclass(slots=True)
class Unknown:
    """The first MANY runs that were answered with 404."""

    runs: set[str] = field(default_factory=set)
    code: str = ""
    """Of the last answer; their patches are dead by that reason."""

    def add(self, run: str, trouble: Trouble) -> None:
        """The run, and all that waited for it, is refused."""
        if trouble.status == 404 and len(self.runs) < MANY:
            self.runs.add(run)
            self.code = trouble.code

    def trouble(self, confirmed: int) -> str | None:
        """What looks wrong, in a line, where not one request has been confirmed."""
        if confirmed or len(self.runs) < MANY:
            return None
        return (
            f"the API knows none of the first {MANY} runs: check api.base_url and"
            f" api.workspace_id, then syncd retry --reason {self.code}"
        )
