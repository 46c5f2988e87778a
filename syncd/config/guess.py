"""Where a daemon may be whose settings file can no longer be read: guesses, the likeliest first."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from syncd.config.keys import Config
from syncd.config.paths import Paths, locate
from syncd.config.read import DEFAULT_FILE, parse
from syncd.errors import ConfigError


def guesses(source: str, environ: Mapping[str, str]) -> Iterator[tuple[Config, Paths]]:
    """What `source` is likely to have said of its daemon's paths, as `make install` has them.

    Then what holds without any file. Variables override either, as always.
    """
    for mapping in (*_installed(Path(source)), {}):
        try:
            config = parse(mapping, environ, source)
            yield config, locate(config, environ)
        except ConfigError:
            continue  # it is the file that is to be mended first


def _installed(source: Path) -> Iterator[dict[str, object]]:
    home = Path(DEFAULT_FILE)
    if source.parent != home.parent or source.suffix != home.suffix:
        return
    name = home.stem if source.name == home.name else f"{home.stem}-{source.stem}"
    yield {
        "store": {"path": f"/var/lib/{name}/syncd.db"},
        "spool": {"path": f"/var/spool/{name}"},
        "control": {"socket": f"/run/{name}/syncd.sock"},
    }
