"""`status`: the roles and engines of a cluster."""

from __future__ import annotations

import time
from typing import Any

import click

from ipython_builder.cli.common import Context, label_argument, platform, verb, which


@click.command("status", short_help="Show the roles and engines of a cluster")
@label_argument
@verb
def command(context: Context, label: str | None) -> int:
    """Show what of the cluster LABEL lives, and what is wrong with it.

    Exits with 0 when it is ready, else with 1.
    """
    local = platform(context)
    state = local.status(which(local, label))
    if context.json:
        context.print_json(state)
    else:
        context.print(render(state))
    return 0 if state["state"] == "ready" else 1


def render(state: dict[str, Any]) -> str:
    """The state for a person; engines that are well are one line."""
    engines = state["engines"]
    counted = f"{engines['registered']} of {engines['requested']} engines registered"
    lines = [f"{state['label']}: {state['state']}, {counted}"]
    lines += [f"  {name:<10} {state[name]}" for name in ("url", "source", "notebooks") if state.get(name)]
    well = [role for role in state["roles"] if role["role"] == "engine" and role["state"] == "ready"]
    for role in state["roles"]:
        if role in well and not role["restarts"]:
            continue
        name = role["role"] if role["role"] != "engine" else f"engine {role['id']}"
        again = f", restarted {role['restarts']}× ({role['reason']})" if role["restarts"] else ""
        age = time.time() - role["since"]
        lines.append(f"  {name:<10} {role['state']} for {_age(age)}, pid {role['pid'] or '-'}{again}")
    quiet = [role for role in well if not role["restarts"]]
    if quiet:
        lines.append(f"  engines    {len(quiet)} ready, never restarted")
    lines += [f"  wrong      {what}" for what in state["wrong"]]
    if state["state"] in ("stopped", "unsupervised", "incomplete"):
        lines.append(
            f"  next       ipython-builder up --label {state['label']} {state.get('source', 'SOURCE')}"
        )
    return "\n".join(lines)


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
