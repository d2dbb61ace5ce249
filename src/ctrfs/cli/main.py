"""``ctrfs``: finds the command, runs it, and turns what goes wrong into one line and a code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

import click
from typing_extensions import override

from ctrfs.errors import CtrfsError
from ctrfs.mount.helper_names import HELPERS
from ctrfs.mount.problems import EXIT_USAGE, innermost, line_for

_EXIT_INTERRUPTED: Final = 130  # what a shell shows for SIGINT
_EXIT_BROKEN_PIPE: Final = 141  # and for SIGPIPE
# Comparing is quadratic, and no command is longer.
_NAME_MAX: Final = 40

# Module and one-line help of each command. A module is loaded when its command is needed, so
# that ``ctrfs umount`` does not wait for the HTTP library.
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "mount": ("mounting", "Mount containers at a directory."),
    "umount": ("mounting", "Unmount, and wait until everything is sent."),
    "ls": ("listing", "List containers, or the files of one."),
    "create": ("creating", "Create a container."),
    "add": ("adding", "Upload files and folders into a container."),
    "status": ("status", "Show what is mounted, and what is not sent yet."),
    "recover": ("recover", "List, copy out, send or forget what could not be sent."),
    "cache": ("caching", "Show how much is kept of what was read, or delete it."),
    "refresh": ("refreshing", "Ask the service again what is in a mounted directory."),
    "keepalive": ("keepalive", "Keep containers from expiring, while it runs."),
    "doctor": ("doctor", "Check what a mount needs."),
    "serve": ("serve", "Serve the Containers API on this machine."),
    "install-helpers": ("installing", "Make mount -t ctrfs, /etc/fstab and umount work."),
}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"ctrfs.cli.{_COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            # click suggests options only. Imported here: every command would wait for it.
            import difflib  # noqa: PLC0415

            near = difflib.get_close_matches(args[0][:_NAME_MAX], _COMMANDS, n=1)
            if not near:
                raise
            text = f"{error.message.rstrip('.')}; did you mean {near[0]}?"
            raise click.UsageError(text, error.ctx) from error

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Shell completion: eval "$(_CTRFS_COMPLETE=bash_source ctrfs)" (or zsh_source, fish_source).',
)
@click.version_option(package_name="ctrfs", prog_name="ctrfs", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Mount the OpenAI Containers API as a Linux file system.

    \b
    Examples:
      ctrfs mount openai: ~/containers      the whole account
      ctrfs mount openai:analysis ~/work    one container
      ctrfs mount local: ~/trial            a service on this machine, no key needed
      ctrfs umount ~/containers
    """  # noqa: D301  # click wants the character itself
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0, 1 for wrong use, or what the command says.

    Under the name of a helper of mount(8) it is that helper.
    """
    _open_missing_descriptors()
    called = Path(sys.argv[0]).name
    if arguments is None and called in HELPERS:
        sys.exit(_run_helper(called))
    sys.exit(_run(arguments))


def _run_helper(called: str) -> int:
    from ctrfs.cli.mount_helper import run_helper  # noqa: PLC0415  # as a command's module

    return run_helper(called, sys.argv[1:])


def _open_missing_descriptors() -> None:
    """Open ``/dev/null`` for standard descriptors that whoever started us has closed.

    Else the next file or socket would get the number, and what is printed would go there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is what a new descriptor gets: here that is ``fd``.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  # positional only
    # Python has None for them if they were closed when it started.
    sys.stdout = sys.stdout or _text_output(1)
    sys.stderr = sys.stderr or _text_output(2)


def _text_output(fd: int) -> TextIO:
    return os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = cli.main(args=arguments, prog_name="ctrfs", standalone_mode=False)
    except click.UsageError as error:
        return _usage_failure(error)
    except click.ClickException as error:
        return _failure(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    except (CtrfsError, OSError, BaseExceptionGroup) as error:
        return _failure_of(innermost(error))
    return result if isinstance(result, int) else 0


def _failure_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _EXIT_INTERRUPTED
    if not isinstance(error, (CtrfsError, OSError)):
        raise error  # a bug of ours: its traceback is what a report needs
    return _failure(line_for(error))


def _usage_failure(error: click.UsageError) -> int:
    command = error.ctx.command_path if error.ctx is not None else "ctrfs"
    return _failure(f"{error.format_message().rstrip('.')}; see {command} --help")


def _failure(line: str) -> int:
    click.echo(f"ctrfs: {line}", err=True)
    return EXIT_USAGE
