"""`template show`: what a template is and asks for."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ipython_builder.cli.common import Context, verb

if TYPE_CHECKING:
    from ipython_builder.templates import Parameter, Template

EPILOG = """\b
Examples:
  ipython-builder template show ipython-cluster-repository
  ipython-builder template show ipython-notebook-workspace --yaml | oc create -f -
"""


def complete_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of packaged templates that begin so."""
    from ipython_builder import templates

    return [name for name in templates.packaged() if name.startswith(incomplete)]


@click.command("show", epilog=EPILOG, short_help="Show what a template is and asks for")
@click.argument("name", shell_complete=complete_name)
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the template's file.")
@verb
def command(context: Context, name: str, as_yaml: bool) -> None:
    """Show the template NAME as a catalogue does: what it is, and the form with its parameters."""
    from ipython_builder import templates
    from ipython_builder.errors import UsageError

    if as_yaml and context.json:
        raise UsageError("--yaml and --json exclude each other", "give one of them")
    template = templates.load(name)
    if as_yaml:
        context.print(templates.text(name).removesuffix("\n"))
    elif context.json:
        context.print_json(_object(template))
    else:
        context.print("\n".join(_lines(template)))


def _object(template: Template) -> dict[str, Any]:
    parameters = [asdict(one) for one in template.parameters]
    for one in parameters:
        one["from"] = one.pop("from_")
    return {
        "name": template.name,
        "display_name": template.display_name,
        "description": template.annotations.get("description", ""),
        "parameters": parameters,
    }


def _lines(template: Template) -> Iterator[str]:
    yield template.name
    yield from _wrapped(template.display_name, "  ")
    for key in ("description", "openshift.io/long-description"):
        if text := template.annotations.get(key):
            yield ""
            yield from _wrapped(text, "  ")
    yield ""
    yield "parameters" if template.parameters else "no parameters"
    for one in template.parameters:
        yield ""
        yield f"  {one.name}" + (f"  ({one.display_name})" if one.display_name else "")
        yield from _wrapped(one.description, "    ")
        yield f"    {_state(one)}"


def _state(parameter: Parameter) -> str:
    if parameter.value:
        return f"default: {parameter.value}" + (", required" if parameter.required else "")
    if parameter.generate:
        return f"generated if not given: {parameter.from_}"
    return "required" if parameter.required else "optional"


def _wrapped(text: str, indent: str) -> list[str]:
    width = max(40, min(100, shutil.get_terminal_size().columns))
    return [
        row
        for line in text.splitlines()
        for row in textwrap.wrap(line, width, initial_indent=indent, subsequent_indent=indent) or [""]
    ]
