"""`s2i`: what the scripts of a builder image call, a group of its own with one file a verb."""

from __future__ import annotations

import click

from ipython_builder.cli import Lazy

VERBS = {
    "assemble": "Make an image of the repository that was uploaded",
    "run": "Be the role that the container's environment names",
    "save-artifacts": "Write what is installed as a tar, for the next build",
    "usage": "Say what the builder image is and how it is used",
    "probe": "Say whether the role in this container is ready, or alive",
}


@click.group(
    "s2i",
    cls=Lazy,
    table=VERBS,
    module="ipython_builder.cli.s2i_",
    short_help="What the scripts of an S2I builder image call",
)
def command() -> None:
    """What the scripts of an S2I builder image call. On one's own machine, use `up` and `build`."""
