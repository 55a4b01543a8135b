"""`prune`: remove cached environments that nothing uses."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, verb

EPILOG = """\b
Examples:
  ipython-builder prune
  ipython-builder prune --json | jq '.removed | length'
"""


@click.command("prune", epilog=EPILOG, short_help="Remove cached environments that nothing uses")
@verb
def command(context: Context) -> None:
    """Remove cached environments that no cluster, running or stopped, is made of. Prints what was removed."""
    from ipython_builder.platforms.base import need_linux

    need_linux()
    from ipython_builder import environment

    removed = environment.prune(context.settings, context.reporter)
    if context.json:
        context.print_json({"removed": [str(path) for path in removed]})
        return
    for path in removed:
        context.print(str(path))
    if not removed:
        click.echo("nothing to remove: every environment is in use", err=True)
