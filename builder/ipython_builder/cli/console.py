"""`console`: an IPython with the cluster behind it."""

from __future__ import annotations

import os
import sys

import click

from ipython_builder.cli.common import Context, complete_label, place_options, platform, verb_of_text
from ipython_builder.errors import BuilderError, UsageError

EPILOG = """\b
Examples:
  ipython-builder console thesis
  ipython-builder console thesis -c 'print(rc.ids)'
  ipython-builder console thesis script.py --its-own-option
"""


@click.command(
    "console", epilog=EPILOG, short_help="Open an IPython with the cluster behind it",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)  # fmt: skip
@click.argument("label", shell_complete=complete_label)
@click.argument("words", nargs=-1, metavar="[IPYTHON ARGUMENTS]...")
@verb_of_text
@place_options
def command(context: Context, label: str, words: tuple[str, ...]) -> None:
    """Open an IPython in the environment and folder of the cluster LABEL.

    `rc` is the client, `view` all engines, `lview` the load-balanced view. Whatever follows LABEL is handed
    to IPython: `ipython-builder console x7k2q -c 'print(rc.ids)'`, or the name of a script.
    """
    if words[:1] == ("--json",):
        raise UsageError("console has no --json: it becomes an IPython", "print what you need: -c 'print(…)'")
    console = platform(context).console(label, words)
    try:
        os.chdir(console.cwd)
    except OSError as error:
        raise BuilderError(
            f"the notebooks of {label} are gone from {console.cwd}: {error.strerror}"
        ) from error
    sys.stdout.flush()
    # Becomes it: Ctrl-C, the terminal's size and its end are IPython's own.
    os.execve(console.argv[0], console.argv, console.environ)  # noqa: S606
