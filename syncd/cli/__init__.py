"""The `syncd` command: which module holds which subcommand, and how each ends.

Modules are imported when their command is asked for, and import what is heavy inside their
functions: `syncd status` has 0.3 s to answer, and Python alone takes a part of it.
"""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from syncd import __version__
from syncd.cli import streams
from syncd.cli.signals import INTERRUPTED, Stopped
from syncd.errors import ConfigError, SyncdError

# In the order in which a newcomer meets them.
COMMANDS = {
    "run": "syncd.cli.run",
    "demo": "syncd.cli.demo.command",
    "sandbox": "syncd.cli.sandbox",
    "enqueue": "syncd.cli.enqueue",
    "status": "syncd.cli.status",
    "list": "syncd.cli.patches",
    "why": "syncd.cli.why",
    "plan": "syncd.cli.plan",
    "batches": "syncd.cli.batches",
    "wait": "syncd.cli.wait",
    "show": "syncd.cli.snapshots",
    "runs": "syncd.cli.snapshots",
    "retry": "syncd.cli.verbs",
    "discard": "syncd.cli.verbs",
    "hold": "syncd.cli.verbs",
    "release": "syncd.cli.verbs",
    "pause": "syncd.cli.verbs",
    "resume": "syncd.cli.verbs",
    "check": "syncd.cli.check",
    "selftest": "syncd.cli.selftest",
}


class Commands(click.Group):
    """A group that imports a subcommand's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> "list[str]":
        """All names, in their order."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command NAME is the attribute `NAME_command` of its module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Where click names no command for what is wrong, it is the one that was called."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            called = self.get_command(ctx, ctx.invoked_subcommand or "")
            if error.ctx is None and called is not None:
                error.ctx = click.Context(called, parent=ctx, info_name=called.name)
            raise


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="syncd", message="%(prog)s %(version)s")
@click.option("--config", "config_path", metavar="FILE", hidden=True)
@click.pass_context
def group(context: click.Context, config_path: str | None) -> int | None:
    """Get names and metadata onto WorkflowRuns: durable, in order, never over the limit.

    Readers work while the daemon is down. Exit codes: 0 fine, 1 trouble, 2 usage, 3 the daemon is
    not running (status), 4 configuration or credentials, 124 timeout (wait), 130 interrupted,
    143 ended by SIGTERM.
    """
    context.obj = config_path
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False  # for click; rich looks for itself
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        return 2
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    streams.mend()
    try:
        code = group.main(arguments, prog_name="syncd", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        code = _refused(error)
    except click.ClickException as error:
        code = _failed([error.format_message()], error.exit_code)
    except ConfigError as error:
        code = _failed(error.errors, error.exit_code)
    except SyncdError as error:
        code = _failed([str(error)], error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        code = _stopped(error)
    except BrokenPipeError:
        # Whoever read our output has left. What is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # All that syncd itself keeps on a disk says so in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _failed(["no space left to write this to; what was done holds"], 1)
    sys.exit(code)


def _stopped(error: BaseException) -> int:
    """The code that a shell gives to what a signal has ended."""
    by = error.__cause__ if isinstance(error, click.Abort) else error
    return by.exit_code if isinstance(by, Stopped) else INTERRUPTED


def _refused(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "syncd"
    reason = " ".join(error.format_message().split())
    if not reason.endswith(" .."):  # which is not the end of a sentence
        reason = reason.removesuffix(".")
    click.echo(f"{path}: {reason}: see `{path} --help`", err=True)
    return error.exit_code


def _failed(lines: Sequence[str], code: int) -> int:
    for line in lines:
        click.echo(f"syncd: {' '.join(line.split())}", err=True)
    return code
