"""What a reload takes over, and what it names as waiting for a restart."""

from dataclasses import replace

import pytest

from syncd.config import Api, Config, Control, Delivery, Log, Retry, Spool, Store
from syncd.config.changes import changes
from syncd.config.keys import KEYS

LIVE = {
    "api.token_file",
    "delivery.rate_per_s",
    "delivery.max_in_flight",
    "delivery.fold",
    "delivery.suspect_s",
    "delivery.drain_s",
    "retry.base_s",
    "retry.cap_s",
    "retry.max_age_s",
    "store.retention_days",
    "log.level",
}

# Every key with another value than its default.
OTHER = Config(
    Api("2026-02-09", "https://x.example", "ws", "/t", 5.0),
    Delivery(1.0, 2, False, 3.0, 4.0),
    Retry(2.0, 3.0, 4.0),
    Store("/a", "read", 2),
    Spool("/b", 1.0, 2),
    Control("/c", "127.0.0.1:9464"),
    Log("debug", "json"),
    source="/etc/syncd/syncd.toml",
)


def test_nothing_changed_is_nothing_to_do() -> None:
    found = changes(OTHER, OTHER)

    assert (found.config, found.taken, found.need_restart) == (OTHER, (), ())


def test_every_key_is_either_taken_over_or_named() -> None:
    found = changes(Config(), OTHER)

    assert set(found.taken) == LIVE
    assert set(found.taken) | set(found.need_restart) == {str(key) for key in KEYS}
    assert not set(found.taken) & set(found.need_restart)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_the_settings_in_use_are_the_old_ones_where_a_restart_is_needed(key: object) -> None:
    section, name = str(key).split(".")
    read = replace(
        Config(),
        **{
            section: replace(
                getattr(Config(), section), **{name: getattr(getattr(OTHER, section), name)}
            )
        },
    )

    found = changes(Config(), read)

    in_use = getattr(getattr(found.config, section), name)
    wanted = OTHER if str(key) in LIVE else Config()
    assert in_use == getattr(getattr(wanted, section), name)


def test_what_waits_for_a_restart_is_named_again_at_the_next_reload() -> None:
    first = changes(Config(), OTHER)

    again = changes(first.config, OTHER)

    assert again.taken == ()
    assert again.need_restart == first.need_restart


def test_the_settings_in_use_say_where_they_were_read() -> None:
    assert changes(Config(), OTHER).config.source == OTHER.source
