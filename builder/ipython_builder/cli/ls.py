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
    """List the clusters of this machine: label, state, engines, URL and source."""
    local = platform(context)
    states = [local.status(label) for label in local.labels()]
    if context.json:
        context.print_json(states)
        return
    if not states:
        click.echo("no clusters: start one with `ipython-builder up SOURCE`", err=True)
        return
    rows = [("LABEL", "STATE", "ENGINES", "URL", "SOURCE")]
    for state in states:
        engines = f"{state['engines']['registered']}/{state['engines']['requested']}"
        rows.append((state["label"], state["state"], engines, state.get("url", ""), state.get("source", "")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        context.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
