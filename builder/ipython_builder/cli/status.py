"""`status`: the roles and engines of a cluster, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from ipython_builder.cli import overview
from ipython_builder.cli.common import Context, label_argument, place_options, platform, verb, which
from ipython_builder.errors import UsageError

if TYPE_CHECKING:
    from ipython_builder.platforms.base import Platform

SECONDS = 1.0  # between two looks
EPILOG = """\b
Examples:
  ipython-builder status
  ipython-builder status thesis --watch
  ipython-builder status thesis --watch --json | jq --unbuffered .engines.busy
"""


@click.command("status", epilog=EPILOG, short_help="Show the roles and engines of a cluster")
@label_argument
@click.option("-w", "--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@verb
@place_options
def command(context: Context, label: str | None, watch: bool) -> int:
    """Show what of the cluster LABEL lives, what it does, its memory, and what is wrong with it.

    Exits with 0 when it is ready, else with 1. With --watch it goes on until Ctrl-C, or until the cluster is
    removed; where that is not shown on a terminal, or with --json, every look is one JSON object in one line.
    """
    local = platform(context)
    label = which(local, label)
    if watch:
        _watch(context, local, label)
        return 0
    state = local.status(label, memory=True)
    if context.json:
        context.print_json(state)
    else:
        height = get_terminal_size().lines - 1 if sys.stdout.isatty() else 40
        context.print("\n".join(overview.lines(state, time.time(), height)))
    return 0 if state["state"] == "ready" else 1


def _watch(context: Context, local: Platform, label: str) -> None:
    """Show the state until the cluster is removed."""
    state: dict[str, Any] | None = local.status(label, memory=True)
    if context.json or not sys.stdout.isatty():
        while state is not None:
            context.print(json.dumps(state, ensure_ascii=False, default=str))
            state = _next(local, label)
    else:
        from ipython_builder.cli.render import Screen

        with Screen() as screen:
            while state is not None:
                screen.show(overview.lines(state, time.time(), screen.height))
                state = _next(local, label)
    context.reporter.log(f"{label} has been removed")


def _next(local: Platform, label: str) -> dict[str, Any] | None:
    """The state a while later; None if there is no such cluster any more."""
    time.sleep(SECONDS)
    try:
        return local.status(label, memory=True)
    except UsageError:
        return None
