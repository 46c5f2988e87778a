"""The token: where it is looked for, what is refused, and that it never shows."""

import copy
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from syncd.config import Api, Config, Token, read_token
from syncd.errors import CredentialsError, SyncdError

SECRET = "sk_live_0123456789"


def credentials(folder: Path, text: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "token").write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def config_with(file: Path) -> Config:
    return Config(api=Api(token_file=str(file)))


def test_the_token_file_wins_over_the_credential_and_that_over_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("from_file\n")
    environ = {"SYNCD_API__TOKEN": "from_variable"}
    both = environ | credentials(tmp_path / "credentials", "from_credential")

    found = [
        read_token(config_with(file), both),
        read_token(Config(), both),
        read_token(Config(), environ),
    ]

    assert [token.reveal() for token in found] == ["from_file", "from_credential", "from_variable"]
    assert str(file) in found[0].source
    assert "credential" in found[1].source
    assert found[2].source == "$SYNCD_API__TOKEN"


def test_a_credentials_directory_without_a_token_is_passed_over(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "SYNCD_API__TOKEN": SECRET}

    assert read_token(Config(), environ).reveal() == SECRET


def test_a_blank_credential_is_none_and_the_error_says_which_file_to_fill(tmp_path: Path) -> None:
    """The unit gives one where the file that it names in LoadCredential= is missing."""
    environ = credentials(tmp_path / "syncd.service", "\n")

    with pytest.raises(CredentialsError) as caught:
        read_token(Config(), environ)

    assert "LoadCredential=" in str(caught.value)
    assert "syncd.service" in str(caught.value)
    assert "/etc/syncd/token" in str(caught.value)
    assert read_token(Config(), environ | {"SYNCD_API__TOKEN": SECRET}).reveal() == SECRET


def test_a_rotated_token_is_seen_by_reading_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    before = read_token(config_with(file), {})

    file.write_text("new")

    after = read_token(config_with(file), {})
    assert after.reveal() == "new"
    assert after != before
    assert after == Token("new")


def test_without_a_token_the_error_says_where_it_looked_and_what_to_do() -> None:
    with pytest.raises(CredentialsError) as caught:
        read_token(Config(), {})

    message = str(caught.value)
    assert "\n" not in message
    for place in (
        "api.token_file",
        '"token"',
        "$CREDENTIALS_DIRECTORY",
        "$SYNCD_API__TOKEN",
        "put",
    ):
        assert place in message
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "content",
    [
        "",
        "  \n",
        f"{SECRET}\n{SECRET}",
        f"Bearer {SECRET}",
        f"{SECRET}\x00",
        f"ä{SECRET}",
        SECRET * 1000,
    ],
)
def test_what_cannot_be_a_token_is_refused_without_being_shown(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)

    for config, environ in ((config_with(file), {}), (Config(), {"SYNCD_API__TOKEN": content})):
        with pytest.raises(CredentialsError) as caught:
            read_token(config, environ)
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_broken_token_file_is_not_papered_over_by_another_source(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        read_token(config_with(tmp_path / "none"), {"SYNCD_API__TOKEN": SECRET})


def test_a_token_file_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (fifo, tmp_path):
        with pytest.raises(CredentialsError, match="is not a regular file"):
            read_token(config_with(path), {})


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_token_file_open_to_everyone_is_warned_about(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(mode)

    warnings = read_token(config_with(file), {}).warnings

    assert bool(warnings) is warned
    assert all("chmod" in warning and SECRET not in warning for warning in warnings)


def test_a_token_shows_itself_only_when_asked() -> None:
    @dataclass
    class Holder:
        token: Token

    token = Token(SECRET)

    shown = [str(token), repr(token), f"{token}", f"{token!r:>10}", f"{token:>10}"]
    shown += [str([token]), repr(Holder(token)), str(SyncdError(token))]
    assert not any(SECRET in text for text in shown)
    assert token.reveal() == SECRET


def test_a_token_cannot_be_written_away() -> None:
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not written anywhere") as caught:
            write(Token(SECRET))
        assert SECRET not in str(caught.value)
