"""`s2i run`: be the role that the environment names, or run a command with the cluster behind it."""

from __future__ import annotations

import os
import sys

import click

from ipython_builder.cli.common import Context, verb
from ipython_builder.errors import BuilderError


@click.command(
    "run", short_help="Be the role that the container's environment names",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[console | COMMAND]...")
@verb
def command(context: Context, words: tuple[str, ...]) -> None:
    """Be what IPYTHON_CONTAINER_TYPE says: viewer (the default), controller or engine.

    `console` is an IPython with the cluster behind it. Any other command finds the cluster as a notebook
    does: `podman run … myimage python analysis.py`.
    """
    from ipython_builder import container, node
    from ipython_builder.places import Places
    from ipython_builder.roles import environ

    places = Places()
    asked = container.read(os.environ, places, client=bool(words))
    home, made = container.make(asked, context.settings.state_dir, places, client=bool(words))
    if not words:
        for line in container.greeting(made, home):
            context.print(line)
        sys.stdout.flush()
        node.run(home, lambda: container.key(os.environ, places))
        return
    given = environ(made, home, os.environ)
    if words[0] == "console":
        os.chdir(made.notebooks)
        words = (str(home.thin / "bin/python"), "-m", "ipython_cluster.console", *words[1:])
    try:
        os.execvpe(words[0], list(words), given)  # noqa: S606
    except OSError as error:
        raise BuilderError(f"cannot run {words[0]}: {error.strerror}") from error
