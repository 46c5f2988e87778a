"""Settings: every key, every error at once, and where files are looked for."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config import Api, Config, parse
from syncd.config.keys import KEYS, SECTIONS
from syncd.config.sample import sample
from syncd.errors import ConfigError

ROOT = Path(__file__).parents[2]
HOME = {"HOME": "/home/ann"}


def errors_of(mapping: dict, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(mapping, HOME | (environ or {}), "/etc/syncd/syncd.toml")
    return caught.value.errors


def error_of(mapping: dict, environ: dict[str, str] | None = None) -> str:
    (error,) = errors_of(mapping, environ)
    return error


# The sample file


def test_the_sample_file_is_the_one_made_from_the_table() -> None:
    shipped = (ROOT / "config/syncd.toml").read_text()

    assert shipped == sample(), "python -m syncd.config.sample >config/syncd.toml"


def test_the_sample_file_as_shipped_changes_nothing() -> None:
    shipped = tomllib.loads((ROOT / "config/syncd.toml").read_text())

    assert parse(shipped, HOME, "sample") == Config()


def test_the_sample_file_lists_every_key_with_its_default() -> None:
    lines = (ROOT / "config/syncd.toml").read_text().splitlines()
    # Prose has a space after its "#", a default has none.
    uncommented = [re.sub("^#(?=[a-z])", "", line) for line in lines]

    mapping = tomllib.loads("\n".join(uncommented))

    assert {f"{part}.{name}" for part, keys in mapping.items() for name in keys} == {
        str(key) for key in KEYS
    }
    assert parse(mapping, HOME, "sample") == Config()


def test_every_key_is_explained_and_accepts_its_own_default() -> None:
    for key in KEYS:
        assert key.note
        assert key.rule.accept(key.default) == key.default


# Values


def test_settings_are_taken_from_the_file() -> None:
    config = parse(
        {"api": {"version": "2026-02-09", "timeout_s": 5}, "delivery": {"fold": False}},
        HOME,
        "file",
    )

    assert config.api == Api(version="2026-02-09", timeout_s=5.0)
    assert isinstance(config.api.timeout_s, float)
    assert config.delivery.fold is False
    assert config.source == "file"


def test_the_environment_overrides_the_file() -> None:
    config = parse(
        {"delivery": {"rate_per_s": -1, "max_in_flight": 2}},
        HOME
        | {
            "SYNCD_DELIVERY__RATE_PER_S": "40",
            "SYNCD_DELIVERY__FOLD": "false",
            "SYNCD_STORE__PATH": "/srv/a b.db",
            "SYNCD_RETRY__BASE_S": "5e-1",
        },
        "file",
    )

    assert config.delivery.rate_per_s == 40.0
    assert config.delivery.max_in_flight == 2
    assert config.delivery.fold is False
    assert config.store.path == "/srv/a b.db"
    assert config.retry.base_s == 0.5


def test_every_error_is_reported_at_once_with_file_key_value_and_what_is_allowed() -> None:
    errors = errors_of(
        {
            "retry": {"cap_s": -1},
            "delivery": {"max_in_flight": 2.0, "fold": "yes"},
            "api": {"version": "v2"},
        },
        {"SYNCD_SPOOL__SETTLE_S": "soon"},
    )

    file = "/etc/syncd/syncd.toml"
    assert set(errors) == {
        f"{file}: retry.cap_s = -1: must be a number of seconds above 0 and at most 86400",
        f"{file}: delivery.max_in_flight = 2.0: must be a whole number of requests from 1 to 1024",
        f'{file}: delivery.fold = "yes": must be true or false',
        f'{file}: api.version = "v2": must be one of'
        ' "v1", "2024-12-23", "2025-04-21", "2026-02-09"',
        '$SYNCD_SPOOL__SETTLE_S: spool.settle_s = "soon":'
        " must be a number of seconds from 0.01 to 3600",
    }


@pytest.mark.parametrize("value", [True, "1", None, [], {}, float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number_is_refused_as_a_number(value: object) -> None:
    assert "retry.cap_s" in error_of({"retry": {"cap_s": value}})
    assert "store.retention_days" in error_of({"store": {"retention_days": value}})


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e999", "0x10", "1_000", "٣", "8 8", "true"])
def test_what_is_no_plain_number_in_the_environment_is_refused(text: str) -> None:
    assert "$SYNCD_RETRY__CAP_S" in error_of({}, {"SYNCD_RETRY__CAP_S": text})


def test_a_cap_below_the_base_is_refused_where_it_was_set() -> None:
    by_cap = error_of({"retry": {"cap_s": 0.5}})
    by_base = error_of({}, {"SYNCD_RETRY__BASE_S": "400"})

    assert by_cap.endswith("retry.cap_s = 0.5: must be at least retry.base_s, which is 1.0")
    assert by_base == (
        "$SYNCD_RETRY__BASE_S: retry.base_s = 400: must be at most retry.cap_s, which is 300.0"
    )


@given(
    st.dictionaries(
        st.sampled_from([*SECTIONS, "retri", "x\ny"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from([key.name for key in KEYS] + ["tokn", "a\x1b"]), inner
                )
            ),
            max_leaves=6,
        ),
    )
)
def test_any_mapping_gives_settings_or_printable_single_lines(mapping: dict) -> None:
    lines: tuple[str, ...] = ("no error",)
    try:
        parse(mapping, HOME, "file")
    except ConfigError as error:
        lines = error.errors

    assert lines
    assert all(line.isprintable() for line in lines)


# Names


def test_an_unknown_key_is_refused_with_the_nearest_known_name() -> None:
    assert error_of({"retry": {"caps_s": 5}}) == (
        "/etc/syncd/syncd.toml: retry.caps_s = 5: unknown key, did you mean cap_s?"
    )


def test_a_key_of_another_section_is_sent_home() -> None:
    assert error_of({"delivery": {"cap_s": 5}}).endswith("unknown key, cap_s belongs in [retry]")
    assert error_of({"rate_per_s": 5}).endswith("unknown section, rate_per_s belongs in [delivery]")


def test_an_unknown_section_is_refused_with_the_nearest_known_name() -> None:
    assert error_of({"retri": {}}).endswith("retri: unknown section, did you mean retry?")


def test_a_section_must_be_a_table() -> None:
    assert error_of({"log": [{}]}).endswith("log = an array: must be a section, [log]")


def test_an_unknown_variable_is_refused_with_the_nearest_known_name() -> None:
    assert error_of({}, {"SYNCD_RETRY__CAPS": "5"}) == (
        "$SYNCD_RETRY__CAPS: unknown variable, did you mean SYNCD_RETRY__CAP_S?"
    )


def test_a_variable_that_none_is_near_to_is_told_the_sections() -> None:
    """All of them begin alike, which makes none of them near."""
    assert error_of({}, {"SYNCD_FOO__BAR": "5"}) == (
        "$SYNCD_FOO__BAR: unknown variable, must be SYNCD_SECTION__KEY, with one of the sections"
        " API, DELIVERY, RETRY, STORE, SPOOL, CONTROL, LOG"
    )


def test_variables_of_others_are_left_alone() -> None:
    environ = {"SYNCD_CONFIG": "x", "SYNCD_API__TOKEN": "t", "SYNCD_SERVICE_HOST": "10.0.0.1"}

    assert parse({}, HOME | environ, "defaults") == Config()


# Secrets


@pytest.mark.parametrize(
    "mapping",
    [
        {"api": {"token": "sk_secret"}},
        {"api": {"tokn": "sk_secret"}},
        {"api": {"token_file": "sk_secret"}},
        {"token": "sk_secret"},
        {"api": "sk_secret"},
        {"api": {"base_url": "https://ann:sk_secret@example.org"}},
        {"api": {"base_url": "https://sk_secret@"}},
        {"api": {"base_url": "https://example.org?key=sk_secret"}},
        {"api": {"base_url": "https://example.org#sk_secret"}},
    ],
)
def test_an_error_never_shows_what_may_be_the_token(mapping: dict) -> None:
    assert "sk_secret" not in error_of(mapping)


def test_an_unknown_variable_does_not_show_its_value() -> None:
    assert "sk_secret" not in error_of({}, {"SYNCD_API__KEY": "sk_secret"})


def test_a_token_in_the_file_is_told_where_it_belongs() -> None:
    assert "name that one in api.token_file" in error_of({"api": {"token": "sk_secret"}})


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://api.eu1.extend.ai",
        "https://proxy.example.org:8443/extend/v1",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://localhost:1",
        "http://[::1]:8080/v1",
    ],
)
def test_a_base_url_is_https_or_loopback(url: str) -> None:
    config = parse({"api": {"base_url": url + "/"}}, HOME, "file")

    assert config.api.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.extend.ai",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://127.1",
        "http://0.0.0.0:80",
        "http://[fe80::1]",
        "http://[::1%lo]",
        "https://",
        "https:///v1",
        "https://user@example.org",
        "https://example.org?a=b",
        "https://example.org/#x",
        "https://example.org:port",
        "https://example.org:0",
        "https://[::1",
        "https://exa mple.org",
        "https://example.org\\@evil.example",
        "https://exämple.org",
        "https://example.org\n",
        "ftp://127.0.0.1",
        "example.org",
        7,
    ],
)
def test_any_other_base_url_is_refused(url: object) -> None:
    assert "must be an https:// address" in error_of({"api": {"base_url": url}})


def test_each_generation_has_its_own_address_and_header() -> None:
    assert Api().url == "https://api-prod.extend.app/v1"
    assert Api().version_header is None
    for version in ("2024-12-23", "2025-04-21", "2026-02-09"):
        assert Api(version=version).url == "https://api.extend.ai"
        assert Api(version=version).version_header == version


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::]:9464", ("::", 9464)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_metrics_have_a_host_and_a_port(text: str, address: tuple[str, int] | None) -> None:
    config = parse({"control": {"metrics": text}}, HOME, "file")

    assert config.control.metrics_address == address


@pytest.mark.parametrize(
    "text",
    [":9464", "9464", "::1:9464", "host:1", "127.0.0.1:99999", "[127.0.0.1]:1", "127.0.0.1:"],
)
def test_metrics_without_a_host_or_a_port_are_refused(text: str) -> None:
    assert "must be IP:PORT" in error_of({"control": {"metrics": text}})


@pytest.mark.parametrize("value", ["ws 1", "ws_1\r\nx: y", "ws_ä", "w" * 256])
def test_a_workspace_that_cannot_stand_in_a_header_is_refused(value: str) -> None:
    assert "api.workspace_id" in error_of({"api": {"workspace_id": value}})


def test_a_variable_with_an_underscore_too_few_is_not_passed_over() -> None:
    """It may be the address of a rehearsal: in silence, requests would go to the real service."""
    assert error_of({}, {"SYNCD_API_BASE_URL": "http://127.0.0.1:1"}) == (
        "$SYNCD_API_BASE_URL: unknown variable, did you mean SYNCD_API__BASE_URL?"
    )
