"""`s2i assemble`: in a container, from the uploaded repository to what its image holds."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ipython_builder.cli.common import Context, verb

EPILOG = """\b
Examples, in a container of the builder image:
  ipython-builder s2i assemble                    all of it, from /tmp/src
  ipython-builder s2i assemble --dependencies     the environment alone, for a layer of its own
  ipython-builder s2i assemble --base --requirements scientific.txt
"""


@click.command("assemble", epilog=EPILOG, short_help="Make an image of the repository that was uploaded")
@click.option("--dependencies", is_flag=True, help="Only the environment, from a specification in /tmp/src.")
@click.option("--source", is_flag=True, help="Only what is left to do when the notebooks are in their place.")
@click.option("--pre-build", is_flag=True, help="Only the repository's pre-build hook, in /tmp/src.")
@click.option("--no-hooks", is_flag=True, help="All of it but the repository's hooks.")
@click.option("--base", is_flag=True, help="The environment that a builder image itself has.")
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --base: install this file's requirements too.",
)
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True)
@verb
def command(
    context: Context,
    dependencies: bool,
    source: bool,
    pre_build: bool,
    no_hooks: bool,
    base: bool,
    requirements: Path | None,
    root: Path,
) -> None:
    """Make an image of the repository in /tmp/src.

    Its environment goes over the one in /opt/app-root, its notebooks to /opt/app-root/src. What a previous
    image has saved, in /tmp/artifacts, is put back before anything is installed.
    """
    from ipython_builder.build import assemble
    from ipython_builder.build.facts import Origin
    from ipython_builder.errors import Unavailable, UsageError
    from ipython_builder.places import Places

    if dependencies + source + pre_build + no_hooks + base > 1:
        message = "--dependencies, --source, --pre-build, --no-hooks and --base exclude each other"
        raise UsageError(message, "give one of them")
    if requirements and not base:
        raise UsageError("--requirements goes with --base", "a repository's own are read from its files")
    os.umask(0o002)  # an image runs under any user of its group
    places = Places(root.absolute())
    if base:
        assemble.base(places, context.settings, context.reporter, requirements)
    elif dependencies:
        assemble.dependencies(places, context.settings, context.reporter)
    elif pre_build:
        assemble.begin(places, context.settings, context.reporter)
    elif source:
        assemble.finish(places, context.settings, context.reporter)
    else:
        known = os.environ.get
        origin = Origin(
            known("OPENSHIFT_BUILD_SOURCE") or known("IPYTHON_NOTEBOOK_REPOSITORY") or "",
            known("OPENSHIFT_BUILD_REFERENCE") or None,
            known("OPENSHIFT_BUILD_COMMIT") or None,
        )
        try:
            assemble.assemble(places, context.settings, context.reporter, origin, hooks=not no_hooks)
        except Unavailable as error:
            # Here nobody can give our options.
            error.hint = (
                "look at the network; for an index or authorities of your own have config.toml and ca.crt in"
                " /run/secrets/ipython-builder (with s2i: --inject, else mount them)"
            )
            raise
