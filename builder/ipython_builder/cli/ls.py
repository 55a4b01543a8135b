"""`ls`: the clusters of this machine."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, platform, verb

EPILOG = """\b
Examples:
  ipython-builder ls
  ipython-builder ls --json | jq -r '.[] | select(.state == "ready") | .label'
"""


@click.command("ls", epilog=EPILOG, short_help="List the clusters of this machine")
@verb
def command(context: Context) -> None:
    """List the clusters of this machine: label, where it runs, state, engines, URL and source."""
    local = platform(context)
    states = [local.status(label) for label in local.labels()]
    if context.json:
        context.print_json(states)
        return
    if not states:
        click.echo("no clusters: start one with `ipython-builder up SOURCE`", err=True)
        return
    rows = [("LABEL", "WHERE", "STATE", "ENGINES", "URL", "SOURCE")]
    for state in states:
        engines = f"{state['engines']['registered']}/{state['engines']['requested']}"
        where = "/".join(filter(None, (state.get("platform", "local"), state.get("namespace"))))
        url, source = state.get("url", ""), state.get("source", "")
        rows.append((state["label"], where, state["state"], engines, url, source))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        context.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
