"""`down`: stop a cluster and remove what it left."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, complete_label, place_options, platform, verb, which
from ipython_builder.errors import BuilderError, UsageError

EPILOG = """\b
Examples:
  ipython-builder down                       the only cluster
  ipython-builder down thesis course
  ipython-builder down --all --discard       changed notebooks in clones are thrown away
"""


@click.command("down", epilog=EPILOG, short_help="Stop a cluster and remove what it left")
@click.argument("labels", nargs=-1, metavar="[LABEL]...", shell_complete=complete_label)
@click.option("--all", "every", is_flag=True, help="All clusters of this machine.")
@click.option(
    "--discard", is_flag=True, help="Remove a cloned repository even where notebooks in it were changed."
)
@verb
@place_options
def command(context: Context, labels: tuple[str, ...], every: bool, discard: bool) -> None:
    """Stop the clusters LABEL: no process, port or file of them stays.

    A folder used in place is not touched. A clone in which notebooks were changed is kept, and named.
    """
    if every and labels:
        raise UsageError("--all and a label exclude each other")
    local = platform(context)
    names = local.labels() if every else dict.fromkeys(labels or [which(local, None)])
    kept: dict[str, str | None] = {}
    failed: BuilderError | None = None
    for name in names:
        try:
            kept[name] = local.down(name, discard=discard)
        except BuilderError as error:  # the others still go
            if failed is not None:
                context.reporter.warning(f"{name}: {error.message}")
            failed = failed or error  # the first is what this command ends with
    for name, path in kept.items():
        if path:
            context.reporter.warning(f"{name}: notebooks are kept in {path}")
    if context.json and not failed:
        context.print_json({"down": list(kept), "kept": {name: path for name, path in kept.items() if path}})
    if failed:
        raise failed
