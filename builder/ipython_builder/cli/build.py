"""`build`: from a repository to an image."""

from __future__ import annotations

from typing import Any

import click

from ipython_builder.cli.common import Context, index_options, source_options, verb

EPILOG = """\b
Examples:
  ipython-builder build . notebooks
  ipython-builder build https://host/me/notebooks.git registry.example.org/me/notebooks:v1 --push
  ipython-builder build . notebooks --engine docker --image-label team=physics
  ipython-builder build lectures.bundle lectures --builder ipython-builder-scipy

The builder image is made by `make images`. Credentials of --index-url are in no layer of the image.
"""
ENGINES = ("podman", "buildah", "docker", "s2i")


@click.command("build", epilog=EPILOG, short_help="Make an image of a repository")
@source_options
@click.argument("image")
@click.option("--engine", type=click.Choice(ENGINES), help="What builds.  [default: the first that works]")
@click.option(
    "--builder", metavar="IMAGE", default="ipython-builder", show_default=True, help="The image to build on."
)
@click.option("--push", is_flag=True, help="Send it to its registry; only layers that are not there go.")
@click.option("--platform", metavar="P", help="As in linux/arm64.  [default: the engine's own]")
@click.option("--image-label", "labels", multiple=True, metavar="K=V", help="A label (may be repeated).")
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
@index_options
@verb
def command(
    context: Context,
    source: str,
    ref: str | None,
    context_dir: str | None,
    extra: tuple[str, ...],
    image: str,
    engine: str | None,
    builder: str,
    push: bool,
    platform: str | None,
    labels: tuple[str, ...],
    no_cache: bool,
    **install: Any,
) -> None:
    """Make IMAGE of SOURCE: one image that runs as notebook viewer, controller or engine.

    SOURCE is a folder or a git URL. Dependencies and notebooks are layers of their own: when only notebooks
    have changed, only theirs is built and pushed again. In a folder that is under git's control, what git
    ignores stays out. Prints the image's name.
    """
    from ipython_builder import source as sources
    from ipython_builder.build import image as images
    from ipython_builder.build import reference

    context = context.with_flags(**install)
    wish = images.Wish(
        source=sources.parse(source, ref=ref, context_dir=context_dir),
        image=reference.target(image),
        builder=reference.parse(builder, "the builder's name"),
        engine=engine,
        push=push,
        platform=reference.platform(platform) if platform else None,
        labels=reference.labels(labels),
        extra=extra,
        cached=not no_cache,
    )
    made = images.make(wish, context.settings, context.reporter)
    if context.json:
        context.print_json(made)
    else:
        context.print(made["image"])
