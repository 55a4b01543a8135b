"""`lock`: requirements.in -> a hashed requirements.txt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ipython_builder.cli.common import Context, install_options, verb

EPILOG = """\b
Examples:
  ipython-builder lock                  requirements.in of this folder
  ipython-builder lock course --upgrade
  ipython-builder lock . --python 3.11
"""


@click.command("lock", epilog=EPILOG, short_help="Turn requirements.in into a hashed requirements.txt")
@click.argument("source", metavar="[FOLDER]", default=".")
@click.option("--upgrade", is_flag=True, help="Choose the newest versions again.")
@install_options
@verb
def command(context: Context, source: str, upgrade: bool, **install: Any) -> None:
    """Write requirements.txt with exact versions and hashes from the requirements.in in FOLDER.

    Versions are chosen with pip-tools for the Python that the repository asks for. Pins that are there
    already stay as long as they fit, unless --upgrade is given. Prints the file's path.
    """
    from ipython_builder import lock
    from ipython_builder.errors import UsageError

    if "://" in source:
        raise UsageError(f"{source} is no folder: a lock is written beside requirements.in", "clone it first")
    context = context.with_flags(**install)
    result = lock.lock(Path(source), context.settings, context.reporter, upgrade=upgrade)
    say = context.reporter.log
    for name, version in result.added.items():
        say(f"+ {name} {version}")
    for name, version in result.removed.items():
        say(f"- {name} {version}")
    for name, (before, now) in result.changed.items():
        say(f"  {name} {before} → {now}")
    if not result.written:
        say("nothing changed")
    if context.json:
        context.print_json(asdict(result))
    else:
        context.print(str(result.path))
