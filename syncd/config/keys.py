"""Every key, once: its default, what is allowed and what it means.

Error texts, the overrides from the environment and config/syncd.toml are made from this table.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from syncd.config import rules
from syncd.config.rules import Rule

T = TypeVar("T")

DAY_S = 86400

# sun_path holds 108 bytes, the last of them NUL.
SOCKET_PATH_BYTES = 107

# The API's generations, and where each lives unless `base_url` says otherwise.
HOSTS = {
    "v1": "https://api-prod.extend.app/v1",
    "2024-12-23": "https://api.extend.ai",
    "2025-04-21": "https://api.extend.ai",
    "2026-02-09": "https://api.extend.ai",
}


def _key(default: T, rule: Rule[T], *note: str) -> T:
    kept: T = field(default=default, metadata={"rule": rule, "note": note})
    return kept


@dataclass(frozen=True, slots=True)
class Api:
    """The vendor's API and how to reach it."""

    version: str = _key(
        "v1",
        rules.one_of(*HOSTS),
        '"v1": https://api-prod.extend.app/v1, no version header',
        "the dates: https://api.extend.ai with that x-extend-api-version",
    )
    base_url: str = _key(
        "",
        rules.base_url(),
        "Instead of the version's own address, whole: another region, a proxy, the sandbox.",
    )
    workspace_id: str = _key(
        "", rules.header_text(), "The x-extend-workspace-id header, for organisation-wide keys."
    )
    token_file: str = _key(
        "",
        rules.path(secret=True),
        "A file that holds the API token and nothing else, readable by the daemon alone.",
        'Empty: the systemd credential "token", else $SYNCD_API__TOKEN. Read again on reload.',
    )
    timeout_s: float = _key(
        30.0,
        rules.number("seconds", least=0.01, most=600),
        "Seconds to wait for one answer.",
    )

    @property
    def url(self) -> str:
        """Where requests go, without a slash at the end."""
        return self.base_url or HOSTS[self.version]

    @property
    def version_header(self) -> str | None:
        """The value of x-extend-api-version; None where the generation knows no such header."""
        return None if self.version == "v1" else self.version


@dataclass(frozen=True, slots=True)
class Delivery:
    """How fast patches leave."""

    rate_per_s: float = _key(
        8.0,
        rules.number("requests per second", above=0, most=100_000),
        "Requests per second, at most. The vendor's smallest plan allows 10 per organisation.",
    )
    max_in_flight: int = _key(
        8, rules.whole("requests", least=1, most=1024), "Requests under way at a time, at most."
    )
    fold: bool = _key(
        True,
        rules.flag(),
        "One request for several waiting patches of a run, where the result is provably the same.",
    )
    suspect_s: float = _key(
        0.0,
        rules.number("seconds", least=0, most=DAY_S),
        "Seconds in which a request that failed, but may have arrived, may still be applied, late:",
        "one without an answer, or with a 5xx, a 408 or a 2xx that is not the WorkflowRun. After",
        "that its run is read back, and repaired if newer values were undone. 0: api.timeout_s",
        "twice.",
    )
    drain_s: float = _key(
        20.0,
        rules.number("seconds", least=0, most=3600),
        "Seconds that a stop waits for answers; keep it below the unit's TimeoutStopSec.",
    )


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again after a failure that may pass."""

    base_s: float = _key(
        1.0,
        rules.number("seconds", above=0, most=DAY_S),
        "Seconds: the n-th wait is drawn at random below min(cap_s, base_s * 2**(n-1)).",
    )
    cap_s: float = _key(
        300.0,
        rules.number("seconds", above=0, most=DAY_S),
        "Seconds: no wait is longer, except where the vendor's Retry-After asks for it.",
    )
    max_age_s: float = _key(
        0,
        rules.number("seconds", least=0, most=3650 * DAY_S),
        "Seconds after which a patch is given up. 0: never give up on a failure that may pass.",
    )


@dataclass(frozen=True, slots=True)
class Store:
    """The SQLite file that holds the outbox and the snapshots."""

    path: str = _key("", rules.path(), "Empty: syncd.db in the state directory.")
    group_access: str = _key(
        "none",
        rules.one_of("none", "read", "write"),
        'What the file\'s group may do with it: "none", "read", or "write" (INSERT rows).',
        "Their way to it, the folder's mode, is yours to open: 2750 to read, 2770 to write.",
    )
    retention_days: int = _key(
        30,
        rules.whole("days", least=1, most=36500),
        "Days that delivered and discarded patches are kept; dead ones and snapshots stay.",
    )


@dataclass(frozen=True, slots=True)
class Spool:
    """The folder that takes patch files: incoming/, done/ and rejected/ are made in it."""

    path: str = _key("", rules.path(), "Empty: spool/ in the state directory.")
    settle_s: float = _key(
        2.0,
        rules.number("seconds", least=0.01, most=3600),
        "Seconds of stillness after which a file that nobody closed is taken.",
    )
    max_file_bytes: int = _key(
        1 << 30,
        rules.whole("bytes", least=1, most=1 << 40),
        "Bytes of one file, unpacked, at most.",
    )


@dataclass(frozen=True, slots=True)
class Control:
    """How commands and monitoring reach the running daemon."""

    socket: str = _key(
        "",
        rules.path(most_bytes=SOCKET_PATH_BYTES),
        "Empty: $RUNTIME_DIRECTORY/syncd.sock, else in the state directory.",
    )
    metrics: str = _key(
        "",
        rules.address(),
        'For example "127.0.0.1:9464": Prometheus text at /metrics, and /healthz. Empty: none.',
    )

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port to listen on, or None for no listener."""
        return rules.split_address(self.metrics)


@dataclass(frozen=True, slots=True)
class Log:
    """What is written to standard output."""

    level: str = _key(
        "info",
        rules.one_of("debug", "info", "warning", "error", "critical"),
        '"debug" (every attempt), "info" (every change of state), "warning", "error" or "critical"',
    )
    format: str = _key(
        "auto",
        rules.one_of("auto", "console", "json"),
        '"auto": console on a terminal, else JSON lines, with <N> priorities under journald',
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. `source` says where they come from, for people to read."""

    api: Api = Api()
    delivery: Delivery = Delivery()
    retry: Retry = Retry()
    store: Store = Store()
    spool: Spool = Spool()
    control: Control = Control()
    log: Log = Log()
    source: str = field(default="defaults", compare=False)


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the table; a mapping of `section` to `name` is how a file says it."""

    section: str
    name: str
    rule: Rule[Any]
    default: object
    note: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return f"SYNCD_{self.section.upper()}__{self.name.upper()}"


SECTIONS: dict[str, type] = {
    part.name: type(part.default) for part in fields(Config) if part.name != "source"
}


def _keys() -> Iterator[Key]:
    for section, kind in SECTIONS.items():
        for part in fields(kind):
            yield Key(
                section, part.name, part.metadata["rule"], part.default, part.metadata["note"]
            )


KEYS: tuple[Key, ...] = tuple(_keys())
