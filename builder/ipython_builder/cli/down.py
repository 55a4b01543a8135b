"""`down`: stop a cluster and remove what it left."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, label_argument, platform, verb, which
from ipython_builder.errors import BuilderError, UsageError


@click.command("down", short_help="Stop a cluster and remove what it left")
@label_argument
@click.option("--all", "every", is_flag=True, help="All clusters of this machine.")
@click.option(
    "--discard", is_flag=True, help="Remove a cloned repository even where notebooks in it were changed."
)
@verb
def command(context: Context, label: str | None, every: bool, discard: bool) -> None:
    """Stop the cluster LABEL: no process, port or file of it stays.

    A folder used in place is not touched. A clone in which notebooks were changed is kept, and named.
    """
    if every and label:
        raise UsageError("--all and a label exclude each other")
    local = platform(context)
    labels = local.labels() if every else [which(local, label)]
    kept = {}
    failed = None
    for name in labels:
        try:
            kept[name] = local.down(name, discard=discard)
        except BuilderError as error:  # the others still go
            failed = failed or error
            context.reporter.warning(f"{name}: {error.message}")
    for name, path in kept.items():
        if path:
            context.reporter.warning(f"{name}: changed notebooks are kept in {path}")
    if context.json and not failed:
        context.print_json({"down": list(kept), "kept": {name: path for name, path in kept.items() if path}})
    if failed:
        raise failed
