"""`s2i probe`: whether the role in this container is ready, or alive; one probe for every platform."""

from __future__ import annotations

import time

import click

from ipython_builder.cli.common import Context, verb
from ipython_builder.errors import BuilderError, Unavailable

POLL = 0.1


@click.command("probe", short_help="Say whether the role in this container is ready, or alive")
@click.argument("what", type=click.Choice(["ready", "live"]), default="ready")
@click.option("--wait", type=click.FloatRange(0), default=0.0, help="Seconds in which it may become well.")
@verb
def command(context: Context, what: str, wait: float) -> None:
    """End with 0 if the role in this container is well.

    ready: the viewer or the controller answers, every engine is registered.
    live: the supervisor answers, and its role can be started. What others do does not count: a controller
    that is gone is no reason to end its engines.
    """
    deadline = time.monotonic() + wait
    said = ""
    while True:
        try:
            context.print(_look(context, what))
            return
        except BuilderError as error:
            if time.monotonic() > deadline:
                raise
            if error.message != said:
                said = error.message
                context.reporter.log(said)
        time.sleep(POLL)


def _look(context: Context, what: str) -> str:
    """The state of the role.

    Raises:
        BuilderError: it is not well.
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
    return str(state["state"])
