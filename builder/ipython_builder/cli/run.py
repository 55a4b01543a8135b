"""`run`: execute a notebook in the running viewer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ipython_builder.cli.common import Context, complete_label, place_options, platform, verb
from ipython_builder.errors import RepositoryError, UsageError

EPILOG = """\b
Examples:
  ipython-builder run x7k2q analysis.ipynb                 outputs are saved in the workspace
  ipython-builder run x7k2q analysis.ipynb -o done.ipynb   outputs go to a file here
  ipython-builder run x7k2q lecture.ipynb --cells 1-40 --timeout 600
"""


@click.command("run", epilog=EPILOG, short_help="Execute a notebook in the running viewer")
@click.argument("label", shell_complete=complete_label)
@click.argument("notebook")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the executed notebook here.",
)
@click.option("--cells", metavar="FROM-TO", help="Run only these cells, counted from 1 with the text cells.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds that one cell may take."
)
@click.option("--allow-errors", is_flag=True, help="Go on after a cell that failed.")
@verb
@place_options
def command(
    context: Context, label: str, notebook: str, output: Path | None,
    cells: str | None, timeout: float | None, allow_errors: bool,
) -> int:  # fmt: skip
    """Execute NOTEBOOK in the viewer of the cluster LABEL, with a kernel of its own.

    NOTEBOOK is a path in the workspace, or else a file here. What ran is written even when a cell fails; then
    the exit code is 1. Without -o a notebook of the workspace is saved where it is, and a file here beside it
    as NAME.done.ipynb.
    """
    from ipython_builder.workspace import CellDone, Workspace

    chosen = _range(cells) if cells else None
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(
            f"there is no folder {output.parent} to write {output.name} to", "make it, or name another"
        )
    with platform(context).viewer(label) as there:
        workspace = Workspace(*there)
        path, content, inside = _read(workspace, notebook)
        count = len(content["cells"])
        if chosen is not None and not any(position in chosen for position in range(1, count + 1)):
            raise UsageError(
                f"--cells {cells} are none of {path}, which has {count}", f"cells are 1 to {count}"
            )
        if output is None and not inside:
            output = Path(notebook).with_suffix(".done.ipynb")
        reporter = context.reporter
        with reporter.phase("run", f"running {path}") as phase:

            def show(done: CellDone) -> None:
                where = f"[{done.nth}/{done.code_cells}] cell {done.position}"
                line = f"{where}, {done.seconds:.1f} s: {done.first_line[:60]}"
                if done.failed:
                    reporter.warning(f"{line} → {done.failed}")
                else:
                    reporter.log(line)

            try:
                failed = workspace.execute(
                    path, content, cells=chosen, timeout=timeout, allow_errors=allow_errors, on_cell=show
                )
            finally:
                if output is None:
                    workspace.write(path, content)
                else:
                    _write(output, content)
            if failed:
                phase.failed(f"ran {path}: {failed}")
            else:
                phase.done(f"ran {path}")
    where = str(output or path)
    if context.json:
        context.print_json({"notebook": path, "output": where, "failed": failed})
    else:
        context.print(where)
    return 1 if failed else 0


def _read(workspace: Any, notebook: str) -> tuple[str, dict[str, Any], bool]:
    """Its path in the workspace, its content, whether it is there; a file here is the second choice."""
    try:
        return notebook, workspace.read(notebook), True
    except RepositoryError as missing:
        file = Path(notebook)
        if not file.is_file():
            raise
        import nbformat

        try:
            content = nbformat.read(file, as_version=4)
        except Exception as error:  # nbformat raises whatever its reader met
            raise RepositoryError(
                f"{file} is not a notebook: {str(error)[:200]}", "mend the file"
            ) from missing
        return file.name, content, False


def _write(path: Path, content: dict[str, Any]) -> None:
    import nbformat

    text = nbformat.writes(nbformat.from_dict(content))
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_text(text + "\n")
        half.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _range(text: str) -> range:
    match = re.fullmatch(r"(\d*)-(\d*)|(\d+)", text)
    if not match or text == "-":
        raise UsageError(f"--cells {text} cannot be meant", "give two positions such as 1-40, 5- or -12")
    if match[3]:
        return range(int(match[3]), int(match[3]) + 1)
    return range(int(match[1] or 1), int(match[2]) + 1 if match[2] else 1_000_000)
