"""The peers: what each is, what it needs, and how safe what it has accepted is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to do the same work."""

    name: str
    program: str
    """Of programs/."""
    packages: tuple[str, ...]
    """From the Python index, into an environment of its own; none: it comes from npm."""
    patches: int
    """As many as take it some seconds."""
    durability: str
    behind: float = 1.0
    """The daemon must deliver at least so many times as fast."""
    needs_postgresql: bool = False


PEERS = (
    Peer(
        "extend-ai in a semaphore loop",
        "sdk.py",
        ("extend-ai>=1.20,<2",),
        1_000,
        "patches only in memory; a commit per answer, FULL",
    ),
    Peer(
        "Node: undici + better-sqlite3",
        "node/main.mjs",
        (),
        20_000,
        "both on disk; answers committed in groups of 10 ms, FULL",
    ),
    Peer(
        "DBOS on SQLite",
        "dbos_sqlite.py",
        ("dbos>=3,<4", "aiohttp>=3.11"),
        300,
        "both on disk, every step too; rollback journal, FULL",
    ),
    Peer(
        "Huey on SQLite",
        "huey_sqlite.py",
        ("huey>=3,<4", "urllib3>=2"),
        2_000,
        "fsync=True; one that is being sent is lost in a crash",
        behind=10.0,
    ),
    Peer(
        "persist-queue + aiohttp",
        "persist.py",
        ("persist-queue>=1.1,<2", "aiohttp>=3.11", "uvloop>=0.20"),
        3_000,
        "both on disk; commits for taking, answer, acknowledging, FULL",
    ),
    Peer(
        "Procrastinate on PostgreSQL",
        "procrastinate_pg.py",
        ("procrastinate>=3,<4", "psycopg[binary,pool]>=3.2", "aiohttp>=3.11", "uvloop>=0.20"),
        2_000,
        "both on disk; commits for taking, answer, finishing, fsync on",
        behind=10.0,
        needs_postgresql=True,
    ),
)
