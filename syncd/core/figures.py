"""What the relay has done, in numbers: all of it, and of late. Instants are on one steady clock."""

from dataclasses import dataclass, field

from syncd.core.alike import Alike
from syncd.core.estimate import Lately
from syncd.core.minute import Minute
from syncd.core.outcome import Trouble
from syncd.core.unknown import Unknown


@dataclass(slots=True)
class RelayFigures:
    """Counted as it happens."""

    delivered: int = 0
    requests: int = 0
    confirmed: int = 0
    """Requests that delivered something."""
    latency_s: float = 0.0
    """Of one request, smoothed."""
    unknown: Unknown = field(default_factory=Unknown)
    alike: Alike = field(default_factory=Alike)
    _delivered: Minute = field(default_factory=Minute)
    _requests: Minute = field(default_factory=Minute)
    _done: Minute = field(default_factory=Minute)
    _at_work_since: float | None = None

    def works(self, now: float) -> None:
        """Something waits that may go."""
        if self._at_work_since is None:
            self._at_work_since = now

    def rests(self) -> None:
        """Nothing waits at all, not even for later."""
        self._at_work_since = None

    def answered(self, latency_s: float, now: float) -> None:
        """A request has come to its end."""
        self.requests += 1
        self._requests.add(1, now)
        share = 0.1 if self.requests > 1 else 1.0
        self.latency_s += share * (latency_s - self.latency_s)

    def confirms(self, patches: int, now: float) -> None:
        """A request has delivered this many patches."""
        self.delivered += patches
        self.confirmed += 1
        self._delivered.add(patches, now)
        self.alike.end()

    def refuses(self, run: str, trouble: Trouble) -> None:
        """A patch of the run is dead, or all that waited for it."""
        self.unknown.add(run, trouble)
        self.alike.add(run, trouble)

    def trouble(self) -> str | None:
        """What the refusals have in common, in a line, if that looks like a wrong setting."""
        return self.unknown.trouble(self.confirmed) or self.alike.trouble()

    def ends(self, patches: int, now: float) -> None:
        """This many patches wait no more: delivered or refused."""
        self._done.add(patches, now)

    def delivered_per_s_1m(self, now: float) -> float:
        """Patches a second over the last minute."""
        return self._delivered.per_s(now)

    def lately(self, now: float) -> Lately:
        """The last minute, for whoever reckons how long the rest takes."""
        since = now if self._at_work_since is None else self._at_work_since
        return Lately(self._requests.count(now), self._done.count(now), now - since)

    @property
    def patches_per_request(self) -> float:
        """How much folding has saved."""
        return self.delivered / self.confirmed if self.confirmed else 1.0
