"""`password`: show the viewer's password."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, label_argument, place_options, platform, verb, which

EPILOG = """\b
Examples:
  ipython-builder password                   of the only cluster
  ipython-builder password thesis | xclip
"""


@click.command("password", epilog=EPILOG, short_help="Show the viewer's password")
@label_argument
@verb
@place_options
def command(context: Context, label: str | None) -> None:
    """Show the password of the viewer of the cluster LABEL."""
    local = platform(context)
    label = which(local, label)
    password = local.password(label)
    if context.json:
        context.print_json({"label": label, "password": password})
    else:
        context.print(password)
