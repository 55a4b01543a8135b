"""`template ls`: list the templates that come with this tool."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, verb

EPILOG = """\b
Examples:
  ipython-builder template ls
  ipython-builder template ls --json | jq -r .templates[].name
"""


@click.command("ls", epilog=EPILOG, short_help="List the templates that come with this tool")
@verb
def command(context: Context) -> None:
    """List the templates that come with this tool: name and display name, one a line."""
    from ipython_builder import templates

    found = [templates.load(name) for name in templates.packaged()]
    if context.json:
        context.print_json(
            {"templates": [{"name": one.name, "display_name": one.display_name} for one in found]}
        )
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        context.print(f"{one.name:<{width}}  {one.display_name}")
