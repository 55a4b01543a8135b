"""`s2i probe`: whether the role in this container is ready, or alive; one probe for every platform."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, verb
from ipython_builder.errors import Unavailable


@click.command("probe", short_help="Say whether the role in this container is ready, or alive")
@click.argument("what", type=click.Choice(["ready", "live"]), default="ready")
@verb
def command(context: Context, what: str) -> None:
    """End with 0 if the role in this container is well.

    ready: the viewer or the controller answers, every engine is registered.
    live: the supervisor answers, and its role can be started. What others do does not count: a controller
    that is gone is no reason to end its engines.
    """
    from ipython_builder import control
    from ipython_builder.record import Home

    folder = context.settings.state_dir / "clusters"
    homes = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if len(homes) != 1:
        raise Unavailable("no role runs here", "start one: ipython-builder s2i run")
    state = control.ask(Home(homes[0]).socket, "status", brief=True, timeout=4)
    failing = [role["reason"] for role in state["roles"] if role["state"] == "failing"]
    if failing:
        raise Unavailable(f"failing: {failing[0]}")
    if what == "ready" and state["state"] != "ready":
        why = "; ".join(one["what"] for one in state["wrong"]) or "not ready yet"
        raise Unavailable(f"{state['state']}: {why}")
    context.print(str(state["state"]))
