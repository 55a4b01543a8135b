"""`template process`: a template and values become objects, as with `oc process --local`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ipython_builder.cli.common import Context, verb_of_text
from ipython_builder.errors import UsageError

if TYPE_CHECKING:
    from ipython_builder.templates import Parameter, Template

EPILOG = """\b
Examples:
  ipython-builder template process ipython-notebook-workspace -p IPYTHON_USER_LABEL=ada | oc apply -f -
  ipython-builder template process -f mine.yaml --param-file values.env -o yaml
  ipython-builder template process -f mine.yaml --parameters
"""


@click.command("process", epilog=EPILOG, short_help="Turn a template and values into objects")
@click.argument("words", metavar="[NAME] [PARAM=VALUE]...", nargs=-1)
@click.option("-f", "--filename", metavar="FILE", help="Process the template in FILE; - reads stdin.")
@click.option("-p", "--param", "given", multiple=True, metavar="PARAM=VALUE", help="Set a parameter.")
@click.option(
    "--param-file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Read parameters from FILE, one PARAM=VALUE a line; - reads stdin. What -p sets wins.",
)
@click.option("-l", "--labels", metavar="KEY=VALUE,...", help="Set these labels on every object.")
@click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), help="How to print the objects. [default: json]"
)
@click.option("--parameters", "only_list", is_flag=True, help="List the template's parameters only.")
@click.option(
    "--ignore-unknown-parameters",
    "ignore_unknown",
    is_flag=True,
    help="Leave values alone that the template has no parameter for.",
)
@click.option("--local", is_flag=True, help="Changes nothing: no server is asked here.")
@verb_of_text
def command(
    context: Context,
    words: tuple[str, ...],
    filename: str | None,
    given: tuple[str, ...],
    files: tuple[str, ...],
    labels: str | None,
    output: str | None,
    only_list: bool,
    ignore_unknown: bool,
    local: bool,
) -> None:
    """Print the objects that a template becomes with these values: one List, for `oc apply -f -`.

    The template is one that comes with this tool, by its NAME, or the one in FILE. The same as
    `oc process --local` prints, but for generated values: these are drawn from the operating system.
    """
    from ipython_builder import documents, parameters, templates

    names = [word for word in words if "=" not in word]
    given += tuple(word for word in words if "=" in word)
    if only_list and (given or labels or output):
        raise UsageError("--parameters processes nothing", "leave out -p, -l and -o")
    for word in given:
        if re.fullmatch(r".*=.*,.*=.*", word):
            context.reporter.warning(f"{word!r} is one value: give each parameter a -p of its own")
    chosen = parameters.assignments(given)
    for file in () if only_list else files:
        values = parameters.from_file(_read(file), "stdin" if file == "-" else file)
        for name in values.keys() & chosen.keys():
            context.reporter.warning(f"{name} is set already: its value in {file} is not used")
        chosen = values | chosen
    template = _template(names, filename)
    for notice in template.notices:
        context.reporter.warning(notice)
    if only_list:
        context.print("\n".join(_table(template.parameters)))
        return
    done = templates.process(
        template, chosen, labels=parameters.labels(labels or ""), ignore_unknown=ignore_unknown
    )
    # Without any the original tells an empty list from none.
    objects = done.objects or template.raw.get("objects")
    written = documents.list_as_yaml(objects) if output == "yaml" else documents.list_as_json(objects)
    context.print(written.removesuffix("\n"))


def _template(names: Sequence[str], filename: str | None) -> Template:
    from ipython_builder import templates

    if len(names) + (filename is not None) != 1:
        raise UsageError(
            "which template?" if not names else "one template at a time",
            "name one (ipython-builder template ls lists them) or give a file with -f",
        )
    if filename is None:
        return templates.load(names[0])
    return templates.parse(_read(filename), "stdin" if filename == "-" else filename)


def _read(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8", "save it as UTF-8") from error
    except OSError as error:
        hint = "download it first" if "://" in file else "name a file that can be read"
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint) from error


def _table(parameters: Sequence[Parameter]) -> Iterator[str]:
    rows = [("NAME", "DESCRIPTION", "GENERATOR", "VALUE")]
    rows += [
        (one.name, one.description, one.generate, one.from_ if one.generate else one.value)
        for one in parameters
    ]
    # A text of several lines would tear the columns apart.
    rows = [tuple(" ".join(cell.splitlines()) for cell in row) for row in rows]  # type: ignore[misc]
    widths = [max(20, *(len(row[column]) + 3 for row in rows)) for column in range(3)]
    for row in rows:
        yield "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + row[3]
