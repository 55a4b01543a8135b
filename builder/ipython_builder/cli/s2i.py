"""`s2i`: what the scripts of a builder image call, a group of its own with one file a verb."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "assemble": "Make an image of the repository that was uploaded",
    "run": "Be the role that the container's environment names",
    "save-artifacts": "Write what is installed as a tar, for the next build",
    "usage": "Say what the builder image is and how it is used",
    "probe": "Say whether the role in this container is ready, or alive",
}


class Scripts(click.Group):
    """Verbs that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"ipython_builder.cli.s2i_{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group("s2i", cls=Scripts, short_help="What the scripts of an S2I builder image call")
def command() -> None:
    """What the scripts of an S2I builder image call. On one's own machine, use `up` and `build`."""
