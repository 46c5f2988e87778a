"""A local stand-in for the vendor's API, for the demo, for tests and for trying things out.

What the vendor's documents say, it does; what they leave open is a switch in `SandboxSettings`
and never a claim. It listens on loopback unless told otherwise and needs nothing from outside.
"""

from syncd.sandbox.app import serve
from syncd.sandbox.faults import Faults, parse_faults
from syncd.sandbox.settings import Api, Merge, Null, RetryAfter, SandboxSettings

__all__ = [
    "Api",
    "Faults",
    "Merge",
    "Null",
    "RetryAfter",
    "SandboxSettings",
    "parse_faults",
    "serve",
]
