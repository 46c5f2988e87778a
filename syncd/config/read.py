"""From a TOML file and the environment to a Config, or to every reason why not."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from syncd.config.keys import KEYS, SECTIONS, Config, Key
from syncd.config.paths import NoPlace, locate
from syncd.config.rules import as_toml, hidden
from syncd.errors import ConfigError

DEFAULT_FILE = "/etc/syncd/syncd.toml"
MAX_FILE_BYTES = 1 << 20

PATHS = ("store.path", "spool.path", "control.socket")  # the keys that say where things are

# Variables of that shape which are not keys of the file.
TOKEN_VARIABLE = "SYNCD_API__TOKEN"  # noqa: S105 - the variable's name


def load(path: str | None, environ: Mapping[str, str], *, default: str = DEFAULT_FILE) -> Config:
    """Read `path`, else $SYNCD_CONFIG, else `default` where it exists, else nothing but defaults.

    Raises ConfigError with every error at once.
    """
    named = path or environ.get("SYNCD_CONFIG", "")
    source = named or default
    try:
        mapping = _read(source)
    except (FileNotFoundError, NotADirectoryError) as missing:
        if named:
            raise ConfigError([f"{source}: cannot be read: {missing.strerror}"]) from missing
        mapping, source = {}, "defaults"
    except OSError as error:
        raise ConfigError([f"{source}: cannot be read: {error.strerror}"]) from error
    return parse(mapping, environ, source)


def parse(mapping: Mapping[str, object], environ: Mapping[str, str], source: str) -> Config:
    """Check every key of `mapping` and every SYNCD_…__… of `environ`; `source` names the mapping.

    Raises ConfigError with every error at once: ConfigErrorWithRest where only values are wrong,
    and none that says where the database, the spool or the socket are; else PathsUnsure, if there
    may be a daemon all the same.
    """
    errors = [*_unknown_in_file(mapping, source), *_unknown_in_environment(environ)]
    paths_known = not errors
    config = Config(source=source)
    given: dict[str, _Given] = {}
    for key in KEYS:
        entry = _given(key, mapping, environ, source)
        if entry is None:
            continue
        value = key.rule.accept(entry.value)
        if value is None:
            errors.append(f"{entry.where} = {entry.shown}: must be {key.rule.allowed}")
            paths_known &= str(key) not in PATHS
            continue
        given[str(key)] = entry
        section = replace(getattr(config, key.section), **{key.name: value})
        config = replace(config, **{key.section: section})
    errors += _contradictions(config, given)
    try:
        locate(config, environ)
    except NoPlace as error:
        raise ConfigError([*errors, *error.errors]) from error
    except ConfigError as error:
        raise ConfigError([*errors, *(f"{source}: {line}" for line in error.errors)]) from error
    if errors:
        raise (ConfigErrorWithRest if paths_known else PathsUnsure)(errors, config)
    return config


class ConfigErrorWithRest(ConfigError):
    """Some values are wrong; `rest` has the others, and the defaults in place of the wrong ones."""

    def __init__(self, errors: Iterable[str], rest: Config) -> None:
        super().__init__(errors)
        self.rest = rest


class PathsUnsure(ConfigError):
    """What is wrong may have said where things are; `rest` is what can be understood."""

    def __init__(self, errors: Iterable[str], rest: Config) -> None:
        super().__init__(errors)
        self.rest = rest


class NoSettings(ConfigError):
    """The file is there, and nothing in it can be understood."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__([f"{source}: {problem}"])
        self.source = source


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    where: str
    shown: str


def _read(path: str) -> dict[str, object]:
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise NoSettings(path, f"must be at most {MAX_FILE_BYTES} bytes long")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NoSettings(path, f"is not UTF-8 (at line {line})") from error
    except ValueError as error:
        raise NoSettings(path, f"is not TOML: {error}") from error
    except RecursionError as error:
        raise NoSettings(path, "is nested too deeply") from error


def _given(
    key: Key, mapping: Mapping[str, object], environ: Mapping[str, str], source: str
) -> _Given | None:
    if (text := environ.get(key.variable)) is not None:
        value = key.rule.from_text(text)
        return _Given(value, f"${key.variable}: {key}", key.rule.shown(value))
    section = mapping.get(key.section)
    if not isinstance(section, Mapping) or key.name not in section:
        return None
    return _Given(section[key.name], f"{source}: {key}", key.rule.shown(section[key.name]))


def _unknown_in_file(mapping: Mapping[str, object], source: str) -> Iterator[str]:
    for section, content in mapping.items():
        if section not in SECTIONS:
            yield f"{source}: {_name(section)}: {_advice('section', section, tuple(SECTIONS))}"
        elif not isinstance(content, Mapping):
            yield f"{source}: {section} = {hidden(content)}: must be a section, [{section}]"
        else:
            yield from _unknown_in_section(section, content, source)


def _unknown_in_section(section: str, content: Mapping[str, object], source: str) -> Iterator[str]:
    names = tuple(key.name for key in KEYS if key.section == section)
    for name, value in content.items():
        if (section, name) == ("api", "token"):
            yield (
                f"{source}: api.token: the token does not belong in this file,"
                " put it into a file of its own and name that one in api.token_file"
            )
        elif name not in names:
            # It may be the token under a wrong name: texts are not shown.
            where = f"{source}: {section}.{_name(name)}"
            yield f"{where} = {hidden(value)}: {_advice('key', name, names)}"


def _unknown_in_environment(environ: Mapping[str, str]) -> Iterator[str]:
    known = (*(key.variable for key in KEYS), TOKEN_VARIABLE)
    for name in environ:
        # Others may set SYNCD_ names without "__", as Kubernetes does for a service called syncd.
        if not name.startswith("SYNCD_") or name in known:
            continue
        if "__" in name or any(name == each.replace("__", "_") for each in known):
            yield f"${_name(name)}: {_advice_on_variable(name, known)}"


def _advice_on_variable(name: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - as below

    # What all of them begin with makes none of them the likelier one.
    tails = [each.removeprefix("SYNCD_") for each in known]
    if near := get_close_matches(name.removeprefix("SYNCD_"), tails, n=1):
        return f"unknown variable, did you mean SYNCD_{near[0]}?"
    sections = ", ".join(SECTIONS).upper()
    return f"unknown variable, must be SYNCD_SECTION__KEY, with one of the sections {sections}"


def _advice(what: str, name: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only when there is an error to explain

    homes = [key.section for key in KEYS if key.name == name]
    if homes:
        return f"unknown {what}, {name} belongs in [{homes[0]}]"
    if near := get_close_matches(name, known, n=1):
        return f"unknown {what}, did you mean {near[0]}?"
    return f"unknown {what}, must be one of {', '.join(known)}"


def _contradictions(config: Config, given: Mapping[str, _Given]) -> Iterator[str]:
    """Values that are each allowed, but not together."""
    retry = config.retry
    if retry.cap_s >= retry.base_s:
        return
    if entry := given.get("retry.cap_s"):
        yield (
            f"{entry.where} = {entry.shown}: must be at least retry.base_s,"
            f" which is {as_toml(retry.base_s)}"
        )
    elif entry := given.get("retry.base_s"):
        yield (
            f"{entry.where} = {entry.shown}: must be at most retry.cap_s,"
            f" which is {as_toml(retry.cap_s)}"
        )


def _name(name: str) -> str:
    """A name from outside: short, on one line, harmless on a terminal."""
    text = repr(name[:60])[1:-1]
    return text if len(name) <= 60 else text + "…"
