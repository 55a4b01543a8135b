"""`s2i save-artifacts`: what is installed over the builder image, as a tar on stdout and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ipython_builder.errors import UsageError


@click.command("save-artifacts", short_help="Write what is installed as a tar, for the next build")
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True)
def command(root: Path) -> None:
    """Write what is installed over the builder image to stdout, as a tar for the next build."""
    from ipython_builder.build import artifacts
    from ipython_builder.places import Places

    if sys.stdout.isatty():
        raise UsageError("a tar is no text for a terminal", "send it to a file or to tar")
    artifacts.save(Places(root.absolute()), sys.stdout.buffer)
    sys.stdout.buffer.flush()
