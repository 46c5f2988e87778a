"""The root of every error a user is meant to read: one line each, and the exit code it ends in."""

from collections.abc import Iterable


class SyncdError(Exception):
    """Something the user can mend: the message says what, where and what to do."""

    exit_code: int = 1


class ConfigError(SyncdError):
    """The settings are not usable. `errors` holds every reason, one line each."""

    exit_code = 4

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


class CredentialsError(SyncdError):
    """There is no usable API token. The message never holds what was found instead of one."""

    exit_code = 4
