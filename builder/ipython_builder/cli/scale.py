"""`scale`: change the number of engines."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, complete_label, place_options, platform, verb
from ipython_builder.events import counted

EPILOG = """\b
Examples:
  ipython-builder scale thesis 16
  ipython-builder scale thesis 0             no engine for now; notebook and controller stay
"""


# A negative number is an argument here and not an option, so that it is answered by what is wrong with it.
@click.command(
    "scale",
    epilog=EPILOG,
    short_help="Change the number of engines",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("label", shell_complete=complete_label)
@click.argument("n", type=int)
@verb
@place_options
def command(context: Context, label: str, n: int) -> None:
    """Have N engines in the cluster LABEL; 0 keeps the cluster without any.

    New engines are there when the command ends. Idle ones leave first; a busy one may finish its task,
    for up to half a minute.
    """
    state = platform(context).scale(label, n)
    if context.json:
        context.print_json(state)
    else:
        context.print(f"{label}: {counted(state['engines']['registered'], 'engine')}")
