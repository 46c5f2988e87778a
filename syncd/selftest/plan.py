"""What a history holds: drawn from its seed, so that the seed is all one needs to have it again."""

import random
from dataclasses import dataclass

# How the vendor, or the way to it, fails. What each does is in vendor.py.
FAULTS = (
    "lost",  # applied, but the answer never arrives
    "zombie",  # no answer; applied later
    "timeout",  # no answer; never applied
    "429",  # with a Retry-After in seconds
    "429_date",  # … as a date, in any of its forms
    "429_zero",  # … that is over already
    "429_long",  # … of minutes
    "429_garbled",
    "429_silent",  # with none
    "5xx",
    "503_later",  # with a Retry-After
    "slow",
    "garbage",
    "false",  # 200, success: false
    "wrong_id",
    "dns",
    "tls",
    "refused",  # no connection
)

WEIGHTS = {"429_long": 0.3, "zombie": 2.0}  # more or less often than the others

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One history."""

    seed: int
    runs: int
    patches: int
    faults: dict[str, float]
    """Probability of each fault while there are faults."""
    rate: float
    max_in_flight: int
    fold: bool
    deaths: int
    """Of the daemon, by a kill or in order, while there is trouble."""
    drain_s: float
    """How long a stop waits for answers."""
    outage: bool
    """For a while, every request fails."""
    cursed: int
    """Runs of which every request fails while there is trouble."""
    wrong_token: bool
    """For a while, the credentials are refused."""
    disk_faults: float
    """Probability that a statement or commit of the store fails."""
    rude: int
    """Times that a producer keeps the database locked."""
    operators: int
    pauses: int
    reloads: int
    clock_steps: int
    restart_for_calm: bool
    """The daemon is started anew when the faults end; else it has to recover by itself."""
    trouble_s: float
    """For how long there are faults; then all is well, and everything must drain."""


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan {seed}")
    kinds = chance.sample(FAULTS, chance.randrange(0, 8))
    return Plan(
        seed=seed,
        runs=chance.choice([1, 2, 5, 12]),
        patches=chance.choice([5, 20, 40, 60]),
        faults={kind: chance.uniform(0.01, 0.12) * WEIGHTS.get(kind, 1.0) for kind in kinds},
        rate=chance.choice([2.0, 2.5, 8.0, 25.0, 100.0]),
        max_in_flight=chance.choice([1, 3, 8]),
        fold=chance.random() < 0.8,
        deaths=chance.choice([0, 1, 2, 4]),
        drain_s=chance.choice([0.0, 5.0]),
        outage=chance.random() < 0.2,
        cursed=random.Random(f"cursed {seed}").choice([0] * 13 + [1, 2, 5]),
        wrong_token=chance.random() < 0.15,
        disk_faults=chance.choice([0.0, 0.0, 0.01]),
        rude=chance.choice([0, 0, 0, 2]),
        operators=chance.choice([0, 0, 2, 5]),
        pauses=chance.choice([0, 0, 0, 1]),
        reloads=chance.choice([0, 0, 2]),
        clock_steps=chance.choice([0, 0, 2, 4]),
        restart_for_calm=chance.random() < 0.3,
        trouble_s=chance.choice([20.0, 120.0, HOUR_S, 4 * HOUR_S]),
    )
