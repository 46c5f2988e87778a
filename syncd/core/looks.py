"""How much time goes into looks that find nothing: somebody may touch a file without end."""

from dataclasses import dataclass

SHARE = 0.02  # of the time
AT_ONCE_S = 0.25  # before that counts: what is handed in as usual never feels it
LONGEST_S = 1.0


@dataclass(frozen=True, slots=True)
class Looks:
    """What they have taken so far, less what they may. Begun anew by one that finds something."""

    spent_s: float = 0.0
    at: float = 0.0

    def found_nothing(self, began: float, ended: float) -> "Looks":
        """After one more."""
        left_s = max(0.0, self.spent_s - SHARE * (ended - self.at))
        most_s = AT_ONCE_S + SHARE * LONGEST_S
        return Looks(min(left_s + ended - began, most_s), ended)

    def pause_s(self, now: float) -> float:
        """How long to leave it yet before the next one."""
        return max(0.0, (self.spent_s - AT_ONCE_S) / SHARE - (now - self.at))
