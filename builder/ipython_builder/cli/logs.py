"""`logs`: what the roles of a cluster said."""

from __future__ import annotations

import re

import click

from ipython_builder.cli.common import (
    Context,
    complete_role,
    label_argument,
    place_options,
    platform,
    verb_of_text,
    which,
)

_ROLE = r"supervisor|viewer|controller|pool|engine(-\d+)?"
EPILOG = """\b
Examples:
  ipython-builder logs                       all that the roles of the only cluster said
  ipython-builder logs thesis engine-3
  ipython-builder logs controller --follow
  ipython-builder logs thesis viewer --last 20
"""


@click.command("logs", epilog=EPILOG, short_help="Show what the roles of a cluster said")
@label_argument
@click.argument("role", required=False, shell_complete=complete_role)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option(
    "--last", type=click.IntRange(0), default=200, show_default=True, help="Lines of each log to show."
)
@verb_of_text
@place_options
def command(context: Context, label: str | None, role: str | None, follow: bool, last: int) -> None:
    """Show what the roles of the cluster LABEL said.

    ROLE is supervisor, viewer, controller, pool, engine, or one engine such as engine-3; all of them when
    left out. Where there is one cluster, LABEL may be left out.
    """
    local = platform(context)
    if label and not role and label not in local.labels() and re.fullmatch(_ROLE, label):
        label, role = None, label
    for line in local.logs(which(local, label), role, follow=follow, last=last):
        context.print(line)
