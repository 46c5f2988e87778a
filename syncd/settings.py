"""The settings in use: what each part is given of them, and what a reload takes in."""

from collections.abc import Iterator, Mapping

import structlog

from syncd import log
from syncd.config import Config, Token, load, read_token
from syncd.config.changes import changes
from syncd.core.liveness import Allowance
from syncd.core.settlement import Patience
from syncd.errors import SyncdError
from syncd.gate import Limits
from syncd.lanes import SLOW_LOOK_S
from syncd.relay import Policy
from syncd.store.schema import BUSY_TIMEOUT_S

logger = structlog.get_logger()


class Settings:
    """A daemon's configuration and token, as they are now."""

    def __init__(
        self, config: Config, environ: Mapping[str, str], config_path: str | None = None
    ) -> None:
        self.config = config
        self._environ = environ
        self._config_path = config_path
        self._token: Token = read_token(config, environ)
        self._refused: str | None = None
        self._needs_restart: tuple[str, ...] = ()

    def heed_token(self) -> None:
        """Keep the token out of the log, and say there what is wrong with it."""
        log.redact(self._token.reveal())
        for warning in self._token.warnings:
            logger.warning("daemon.token", warning=warning)

    def read_again(self) -> bool:
        """Take in what may change while running; False if a mistake has changed nothing at all."""
        try:
            config = load(self._config_path, self._environ)
            token = read_token(config, self._environ)
        except SyncdError as error:
            self._refused = "; ".join(str(error).splitlines())  # of several mistakes a line each
            logger.error("daemon.reload_refused", error=self._refused, then="all goes on as before")
            return False
        self._refused = None
        log.summarise(start_over=True)
        found = changes(self.config, config)
        taken = list(found.taken)
        if token.reveal() != self._token.reveal():
            taken.append("the token")
        self.config, self._needs_restart, self._token = found.config, found.need_restart, token
        self.heed_token()
        log.set_level(self.config.log.level)
        logger.info("daemon.reloaded", changed=taken)
        if found.need_restart:
            logger.warning("daemon.restart_needed", changed=found.need_restart)
        return True

    def troubles(self) -> Iterator[str]:
        """What the last reload has left to be seen to."""
        if self._refused:
            yield f"the last reload was refused: {self._refused}"
        if self._needs_restart:
            yield f"restart for {', '.join(self._needs_restart)}"

    def bearer(self) -> str:
        """The token as it is now: a reload may have brought another."""
        return self._token.reveal()

    @property
    def suspect_s(self) -> float:
        """For so long a request that failed, but may have arrived, may be applied late."""
        return self.config.delivery.suspect_s or 2 * self.config.api.timeout_s

    @property
    def limits(self) -> Limits:
        """What the gate is given."""
        delivery, retry = self.config.delivery, self.config.retry
        return Limits(delivery.rate_per_s, delivery.max_in_flight, retry.base_s, retry.cap_s)

    @property
    def policy(self) -> Policy:
        """What the relay is given."""
        delivery, retry = self.config.delivery, self.config.retry
        patience = Patience(retry.base_s, retry.cap_s, retry.max_age_s, self.suspect_s)
        return Policy(delivery.fold, delivery.drain_s, patience)

    def allowance(self, still_s: float) -> Allowance:
        """How long what takes time, before the relay counts as stuck."""
        return Allowance(
            answer_s=self.config.api.timeout_s,
            store_s=BUSY_TIMEOUT_S + 1.0,
            look_s=SLOW_LOOK_S,
            still_s=still_s,
        )
