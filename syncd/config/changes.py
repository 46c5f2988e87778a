"""What a reload takes over, and which changed keys wait for a restart."""

from dataclasses import dataclass, replace

from syncd.config.keys import KEYS, Config

# Whatever is not named here is built into the daemon's parts at the start.
_LIVE_SECTIONS = {"delivery", "retry"}
_LIVE_KEYS = {"api.token_file", "store.retention_days", "log.level"}


@dataclass(frozen=True, slots=True)
class Changes:
    """Settings just read beside those in use. Keys are `section.name`."""

    config: Config
    """What is in use from now on: the new values where they can be taken over, else the old."""
    taken: tuple[str, ...]
    need_restart: tuple[str, ...]


def changes(running: Config, read: Config) -> Changes:
    """Compare the settings in use with those just read."""
    taken, need_restart = [], []
    config = replace(running, source=read.source)
    for key in KEYS:
        value = getattr(getattr(read, key.section), key.name)
        if value == getattr(getattr(running, key.section), key.name):
            continue
        if key.section not in _LIVE_SECTIONS and str(key) not in _LIVE_KEYS:
            need_restart.append(str(key))
            continue
        taken.append(str(key))
        section = replace(getattr(config, key.section), **{key.name: value})
        config = replace(config, **{key.section: section})
    return Changes(config, tuple(taken), tuple(need_restart))
