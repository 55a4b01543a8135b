"""`logs`: what the roles of a cluster said."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, label_argument, platform, verb, which


@click.command("logs", short_help="Show what the roles of a cluster said")
@label_argument
@click.argument("role", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option(
    "--last", type=click.IntRange(0), default=200, show_default=True, help="Lines of each log to show."
)
@verb
def command(context: Context, label: str | None, role: str | None, follow: bool, last: int) -> None:
    """Show what the roles of the cluster LABEL said.

    ROLE is supervisor, viewer, controller, pool, engine, or one engine such as engine-3; all of them when
    left out.
    """
    local = platform(context)
    for line in local.logs(which(local, label), role, follow=follow, last=last):
        context.print(line)
