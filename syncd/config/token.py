"""The API token: where it comes from, and how it stays out of sight."""

import os
import re
import stat
from collections.abc import Mapping
from typing import Never

from syncd.config.keys import Config
from syncd.errors import CredentialsError

MAX_TOKEN_BYTES = 4096
VARIABLE = "SYNCD_API__TOKEN"


class Token:
    """A secret that shows itself to nobody but the caller of `reveal()`.

    `source` says where it was found, `warnings` what its owner should mend there.
    """

    __slots__ = ("_text", "source", "warnings")

    def __init__(self, text: str, source: str = "", warnings: tuple[str, ...] = ()) -> None:
        self._text = text
        self.source = source
        self.warnings = warnings

    def reveal(self) -> str:
        """The token itself, for the Authorization header."""
        return self._text

    def __repr__(self) -> str:
        return "<token>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        return self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Never:
        raise TypeError("a token is not written anywhere: it cannot be copied or pickled")


def read_token(config: Config, environ: Mapping[str, str]) -> Token:
    """The token as it is now; call again on reload. Raises CredentialsError, never with the value.

    In this order: api.token_file, the systemd credential "token", $SYNCD_API__TOKEN. The first that
    is there is the one, even where it is not usable: a broken file is never papered over. A blank
    credential is none: the unit gives one where the file that it names is missing.
    """
    if path := config.api.token_file:
        return _from_file(path, f"api.token_file {path}")
    if directory := environ.get("CREDENTIALS_DIRECTORY", ""):
        path = os.path.join(directory, "token")
        if os.path.lexists(path) and not _is_blank(path):
            return _from_file(path, f'the systemd credential "token" ({path})')
    if (text := environ.get(VARIABLE)) is not None:
        return _checked(text, f"${VARIABLE}")
    if directory and os.path.lexists(os.path.join(directory, "token")):
        raise CredentialsError(
            f"no API token: the file that {os.path.basename(directory)} names in LoadCredential= is"
            " missing or empty: put the token there, as shipped /etc/syncd/token (for syncd@NAME"
            " /etc/syncd/NAME.token), with mode 0600, then start again"
        )
    credential = f"not in {directory}" if directory else "no $CREDENTIALS_DIRECTORY"
    raise CredentialsError(
        f"no API token: api.token_file is not set, there is no systemd credential"
        f' "token" ({credential}) and no ${VARIABLE}: put the token into a file that only the'
        " daemon can read and name it in api.token_file"
    )


def unit_warnings(config: Config) -> tuple[str, ...]:
    """What to mend at the file that systemd makes the credential from: the daemon sees the copy.

    As the shipped units have it, `token` beside `syncd.toml`, `NAME.token` beside `NAME.toml`.
    """
    folder, name = os.path.split(config.source)
    if config.api.token_file or not name.endswith(".toml"):
        return ()
    file = "token" if name == "syncd.toml" else f"{name.removesuffix('.toml')}.token"
    path = os.path.join(folder, file)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ()  # none, or none that this user may see
    return _open_to_all(path, mode) if stat.S_ISREG(mode) else ()


def _is_blank(path: str) -> bool:
    """Whether it holds a line break at most, as where SetCredential= stands in for a file."""
    try:
        status = os.stat(path)
    except OSError:
        return False  # reading it as the token will say why
    return stat.S_ISREG(status.st_mode) and status.st_size <= 1


def _from_file(path: str, source: str) -> Token:
    try:
        # O_NONBLOCK: a FIFO put there must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            content = os.read(descriptor, MAX_TOKEN_BYTES + 1) if stat.S_ISREG(mode) else None
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CredentialsError(
            f"{source}: cannot be read: {error.strerror}: make it a file that the daemon can read"
        ) from error
    if content is None:
        raise CredentialsError(f"{source}: is not a regular file: put the token into one")
    return _checked(content.decode("latin-1"), source, _open_to_all(source, mode))


def _open_to_all(source: str, mode: int) -> tuple[str, ...]:
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return ()
    open_to = f"everyone on this machine has access to it (mode {stat.S_IMODE(mode):04o})"
    return (f"{source}: {open_to}: chmod 0600",)


def _checked(text: str, source: str, warnings: tuple[str, ...] = ()) -> Token:
    """The bare token, or an error that does not show it."""
    stripped = text.strip()
    if not stripped:
        raise CredentialsError(f"{source}: is empty: put the API token there")
    if len(stripped) > MAX_TOKEN_BYTES:
        raise CredentialsError(f"{source}: is longer than any token: must be one API token alone")
    if not re.fullmatch("[!-~]+", stripped):
        raise CredentialsError(
            f"{source}: must be one API token alone, printable ASCII without spaces"
            ' (no "Bearer", no second line); it is not shown here'
        )
    return Token(stripped, source, warnings)
