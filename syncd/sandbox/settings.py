"""How a sandbox behaves: address, limits, faults, and a switch for what the vendor leaves open."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from syncd.sandbox.faults import parse_faults


class Api(StrEnum):
    """A generation of the vendor's API; all but `v1` are asked for by header."""

    V1 = "v1"
    V2024 = "2024-12-23"
    V2025 = "2025-04-21"
    V2026 = "2026-02-09"


class Merge(StrEnum):
    """How deep incoming metadata is merged with what is there."""

    SHALLOW = "shallow"
    DEEP = "deep"


class Null(StrEnum):
    """What a null inside metadata does to its key."""

    STORE = "store"
    DELETE = "delete"


class RetryAfter(StrEnum):
    """The form of the Retry-After header on a 429."""

    SECONDS = "seconds"
    DATE = "date"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Everything a sandbox is told; a bad value is a ValueError that names field, value and choice.

    From `merge` on, each field stands for something that the vendor's documents leave open: a
    switch, not a claim. A limit of 0 means none.
    """

    host: str = "127.0.0.1"
    port: int = 0  # 0 takes a free one
    token: str = field(default="sandbox-token", repr=False)
    api: str = Api.V1
    rate: int = 0  # requests in any sliding second
    latency_s: float = 0.0  # between deciding (and applying) and answering
    faults: str = ""  # see faults.py
    state_file: Path | None = None  # runs are loaded from it and saved to it
    seed: int | None = None  # of the faults drawn
    strict: bool = False  # True: only runs of the state file exist; else a run exists once named

    merge: str = Merge.SHALLOW  # unknown; switch
    null: str = Null.STORE  # unknown; switch
    refuse_null: bool = True  # `"name": null` and `"metadata": null`: unknown; switch
    refuse_empty: bool = False  # `{}`: unknown; switch
    refuse_terminal: bool = False  # updates of a run that has ended: unknown; switch
    metadata_limit: int = 10_240  # bytes; documented where runs are created, here unknown; switch
    metadata_limit_on_patch: bool = False  # of the patch, not the merged result: unknown; switch
    name_limit: int = 0  # characters: unknown; switch
    invalid_status: int = 400  # or 422, of an INVALID_REQUEST: unknown; switch
    require_version: bool = True  # depends on the key's age; only dated generations; switch
    show_name: bool = True  # older answers carry `name`; the v1 example does not; switch
    request_id_always: bool = False  # x-extend-request-id on 2xx too: unknown; switch
    retry_after: str = RetryAfter.SECONDS  # unknown; switch
    rate_per_category: bool = False  # reads and writes apart (2026) or together (older); switch

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in list(kind):
                raise ValueError(f"{name} = {value!r}: must be one of {', '.join(kind)}")
        for name in ("port", "rate", "latency_s", "metadata_limit", "name_limit"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be 0 or more")
        if self.invalid_status not in (400, 422):
            raise ValueError(f"invalid_status = {self.invalid_status!r}: must be 400 or 422")
        if not self.token:
            raise ValueError("token = '': must not be empty")
        parse_faults(self.faults)


_CHOICES: dict[str, type[StrEnum]] = {
    "api": Api,
    "merge": Merge,
    "null": Null,
    "retry_after": RetryAfter,
}
