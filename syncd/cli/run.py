"""`syncd run`: the daemon, in the foreground."""

import os

import click

from syncd.cli.options import config_option
from syncd.config import load


@click.command("run")
@config_option
def run_command(config_path: str | None) -> int:
    """The daemon, in the foreground; systemd runs this.

    SIGTERM and SIGINT stop it once the answers that are out are written down, for which it waits up
    to delivery.drain_s; a second one ends that wait, and what was out goes again. SIGHUP makes it
    read its configuration and token again.
    """
    config = load(config_path, os.environ)
    from syncd import daemon

    return daemon.run(config, os.environ, config_path)
