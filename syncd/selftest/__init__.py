"""The simulation: the real relay, gate, fence and store on a virtual clock, against every fault.

One seed is one history: the same faults at the same moments, the same trace. A seed that fails is
a bug report.
"""

from syncd.selftest.history import Verdict, play
from syncd.selftest.plan import Plan, drawn

__all__ = ["Plan", "Verdict", "drawn", "play"]
