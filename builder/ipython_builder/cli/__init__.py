"""The command line: arguments in, library calls, rendered events, exit codes out.

One file a verb. This module holds only the table of verbs, so that `--help` imports none of them.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ipython_builder._version import __version__

VERBS = {
    "up": "Start a notebook and its cluster from a repository",
    "ls": "List the clusters of this machine",
    "status": "Show the roles and engines of a cluster",
    "scale": "Change the number of engines",
    "run": "Execute a notebook in the running viewer",
    "console": "Open an IPython with the cluster behind it",
    "logs": "Show what the roles of a cluster said",
    "password": "Show the viewer's password",
    "down": "Stop a cluster and remove what it left",
    "check": "Say what would be installed, and what is missing or wrong",
    "lock": "Turn requirements.in into a hashed requirements.txt",
    "build": "Make an image of a repository",
    "template": "List, show, process and install the OpenShift templates",
    "prune": "Remove cached environments that nothing uses",
    "s2i": "What the scripts of an S2I builder image call",
}

EPILOG = """\b
Examples:
  ipython-builder up . -n 4                        notebook and four engines from this folder
  ipython-builder up https://host/me/nb.git        the same from a git repository
  ipython-builder status                           the one cluster that runs here, or name its label
  ipython-builder run x7k2q analysis.ipynb -o done.ipynb
  ipython-builder down --all

\b
Completion:  eval "$(_IPYTHON_BUILDER_COMPLETE=bash_source ipython-builder)"
"""


class Lazy(click.Group):
    """Verbs that are imported when they are called; a typo is answered with the nearest one."""

    def __init__(self, *args: Any, table: Mapping[str, str], module: str, **kwargs: Any) -> None:
        """`table` has a line of help for each verb; `module` is what its module's name begins with."""
        super().__init__(*args, **kwargs)
        self.table = table
        self.module = module

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module = importlib.import_module(self.module + name.replace("-", "_"))
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in self.table and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.table, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))


@click.group(
    cls=Lazy,
    table=VERBS,
    module="ipython_builder.cli.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """From a git repository of notebooks to a running notebook with a parallel cluster behind it.

    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 the repository is at
    fault, 69 something needed is unavailable, 75 try again, 130 interrupted.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    words = list(sys.argv[1:] if argv is None else argv)
    sys.exit(exit_code(words))


def exit_code(words: list[str]) -> int:
    """Run the command line and return the exit code; the only place where an error becomes text."""
    from ipython_builder.errors import BuilderError

    as_json = "--json" in words
    # A closed terminal and a cancelled job end as Ctrl-C does: nothing is left running or half-made.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no terminals that hang up
            signal.signal(getattr(signal, name), _stop)
    try:
        result = cli.main(words, prog_name="ipython-builder", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError):
            if as_json:
                _print_error(error.format_message(), None, 2)
            error.show()
            return 2
        _show(error.format_message(), None, as_json, 1)
        return 1
    except (click.Abort, KeyboardInterrupt):
        if as_json:
            _print_error("interrupted", None, 130)
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except BuilderError as error:
        _show(error.message, error.hint, as_json, error.exit_code)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return _unexpected(error, as_json)
        _show(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}", "free some space", as_json, 1
        )
        return 1
    except Exception as error:  # nobody's typing error: ours
        return _unexpected(error, as_json)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _unexpected(error: Exception, as_json: bool) -> int:
    import traceback

    click.echo(traceback.format_exc(), err=True)
    _show(f"this should not happen: {type(error).__name__}: {error}", "please report it", as_json, 1)
    return 1


def _show(message: str, hint: str | None, as_json: bool, code: int) -> None:
    if as_json:
        _print_error(message, hint, code)
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style(" next: ", fg="cyan", bold=True) + hint, err=True)


def _print_error(message: str, hint: str | None, code: int) -> None:
    import json

    click.echo(json.dumps({"error": {"message": message, "hint": hint, "exit_code": code}}))
