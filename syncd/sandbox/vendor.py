"""What the vendor answers to one request about one run: decided at once, without waiting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

from syncd.sandbox.bodies import IN_PROGRESS, status_of, workflow_run
from syncd.sandbox.patches import apply_patch, read_patch
from syncd.sandbox.refusals import Refusal, error_body, refusal
from syncd.sandbox.runs import Run, Runs, join
from syncd.sandbox.settings import Api, SandboxSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, and whether an update was applied for it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    applied: bool = False


class Vendor:
    """The API over the runs; `settings` may be replaced while it works."""

    def __init__(self, settings: SandboxSettings, runs: Runs) -> None:
        self.settings = settings
        self.runs = runs
        self._request_numbers = count(1)

    def objection(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why these headers do not open the door: the bearer first, then the version."""
        if headers.get("Authorization") != f"Bearer {self.settings.token}":
            return refusal(401)
        api = self.settings.api
        if api == Api.V1:
            return None
        match headers.get("x-extend-api-version"):
            case None if self.settings.require_version:
                return refusal(400, "The x-extend-api-version header is missing.")
            case None:
                return None
            case version if version != api:
                return refusal(400, f"This sandbox speaks version {api}, not {version!r}.")
        return None

    def retrieve(self, run_id: str) -> Answer:
        """The answer to a GET of the run."""
        if self.settings.strict and run_id not in self.runs:
            return self.refuse(refusal(404))
        return self.show(run_id)

    def update(self, run_id: str, body: bytes) -> Answer:
        """The answer to a POST to the run; the update is applied when this returns, or refused."""
        if self.settings.strict and run_id not in self.runs:
            return self.refuse(refusal(404))
        patch = read_patch(body, self.settings)
        if isinstance(patch, Refusal):
            return self.refuse(patch)
        status = status_of(self.settings.api, run_id)
        if self.settings.refuse_terminal and status not in IN_PROGRESS:
            text = f"The workflow run is {status} and can no longer be updated."
            return self.refuse(refusal(self.settings.invalid_status, text))
        run = apply_patch(self.runs.get(run_id), patch, self.settings)
        if isinstance(run, Refusal):
            return self.refuse(run)
        self.runs.put(run_id, run)
        return self.show(run_id, applied=True)

    def show(self, run_id: str, *, applied: bool = False) -> Answer:
        """A 200 with the run as it is now."""
        settings = self.settings
        run: Run = self.runs.get(run_id)
        metadata = join(run.metadata)
        body = workflow_run(settings.api, run_id, run.name, metadata, show_name=settings.show_name)
        headers = self._request_id_header() if settings.request_id_always else {}
        return Answer(200, body, headers, applied)

    def refuse(self, refused: Refusal, retry_after: str | None = None) -> Answer:
        """The refusal in this generation's shape, with a request id."""
        headers = self._request_id_header()
        body = error_body(self.settings.api, refused, headers["x-extend-request-id"])
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        return Answer(refused.status, body, headers)

    def _request_id_header(self) -> dict[str, str]:
        return {"x-extend-request-id": f"req_{next(self._request_numbers):012d}"}
