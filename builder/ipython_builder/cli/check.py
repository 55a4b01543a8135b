"""`check`: what would be installed, from which file and why, and what is missing or wrong."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ipython_builder.cli.common import Context, install_options, source_options, verb

if TYPE_CHECKING:
    from ipython_builder.imports import MissingImport
    from ipython_builder.interpreters import Interpreter
    from ipython_builder.source import Checkout
    from ipython_builder.spec import Spec

EPILOG = """\b
Examples:
  ipython-builder check .
  ipython-builder check https://host/me/notebooks.git --ref v2
  ipython-builder check lectures.bundle --with numpy --with scipy
  ipython-builder check . --resolve --json | jq -r .pins[]
"""
_SHOWN = 12


@click.command("check", epilog=EPILOG, short_help="Say what would be installed, and what is missing or wrong")
@source_options
@click.option("--resolve", is_flag=True, help="Ask the index for the versions too; may build sdists.")
@install_options
@verb
def command(
    context: Context,
    source: str,
    ref: str | None,
    context_dir: str | None,
    extra: tuple[str, ...],
    resolve: bool,
    **install: Any,
) -> None:
    """Say what `up` would install for SOURCE, from which file, and what the notebooks import beyond that.

    It only reads: nothing of the repository is run and nothing is installed. With --resolve the package index
    is asked for exact versions, and source distributions may be built to learn what they need.
    """
    from ipython_builder import commands
    from ipython_builder import source as sources

    context = context.with_flags(**install)
    parsed = sources.parse(source, ref=ref, context_dir=context_dir)
    with commands.scratch() as folder:
        checkout = sources.fetch(parsed, folder / "checkout", context.settings, context.reporter)
        for warning in checkout.warnings:
            context.reporter.warning(warning)
        _report(context, parsed.text, checkout, extra, resolve)


def _report(context: Context, source: str, checkout: Checkout, extra: Sequence[str], resolve: bool) -> None:
    from ipython_builder import imports, interpreters, spec
    from ipython_builder.errors import BuilderError, RepositoryError

    asked = spec.read(checkout.root, top=checkout.path, extra=extra)
    preload = imports.preload(asked)
    commit = checkout.commit
    failure: BuilderError | None = None
    python: Interpreter | None = None
    pins: list[str] | None = None
    try:
        python = interpreters.find(asked.python, context.settings, wanted_by=asked.python_from)
        if resolve:
            pins = _resolve(context, asked, python)
    except RepositoryError as error:
        # What could be read is worth showing all the same; the fault is what it ends with.
        failure = error
    resolved = None if pins is None else [re.split(r"[ =@;\[]", pin, maxsplit=1)[0] for pin in pins]
    missing = imports.missing(asked, resolved=resolved)
    if context.json and failure is None:
        context.print_json(_object(source, commit, asked, python, missing, pins, preload))
    elif not context.json:
        context.print("\n".join(_lines(source, commit, asked, python, missing, pins, extra, preload)))
    if failure:
        raise failure


def _resolve(context: Context, asked: Spec, python: Interpreter) -> list[str]:
    from ipython_builder.installer import Installer

    context.reporter.warning(
        "asking the index; a source distribution may be built for that, which runs its code"
    )
    pins = Installer(context.settings, context.reporter, python).resolve(asked)
    return [line for line in pins.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def _object(
    source: str,
    commit: str | None,
    asked: Spec,
    python: Interpreter | None,
    missing: Sequence[MissingImport],
    pins: list[str] | None,
    preload: Sequence[str],
) -> dict[str, Any]:
    from ipython_builder.commands import redact

    return {
        "source": source,
        "commit": commit,
        "file": asked.file,
        "kind": asked.kind,
        "hashed": asked.hashed,
        "requirements": [redact(line) for line in asked.lines],
        "constraints": [redact(line) for line in asked.constraints],
        "index_urls": [redact(url) for url in asked.index_urls],
        "python": {
            "wanted": asked.python or None,
            "wanted_by": asked.python_from,
            "version": python.version if python else None,
            "path": python.path if python else None,
        },
        "notebooks": asked.notebooks,
        "preload": preload,
        "fork": asked.pool.fork,
        "system_packages": asked.system_packages,
        "hooks": asked.hooks,
        "serves_itself": asked.serves_itself,
        "notices": [{"file": notice.file, "message": notice.message} for notice in asked.notices],
        "missing": [
            {"module": one.module, "distribution": one.distribution, "notebooks": one.notebooks}
            for one in missing
        ],
        "with": _with(missing),
        "pins": pins,
    }


def _lines(
    source: str,
    commit: str | None,
    asked: Spec,
    python: Interpreter | None,
    missing: Sequence[MissingImport],
    pins: list[str] | None,
    extra: Sequence[str],
    preload: Sequence[str],
) -> list[str]:
    from ipython_builder.commands import redact

    says = {
        "none": "no file says what to install: only what a cluster needs is installed",
        "requirements-hashed": f"{asked.file}, a lock with hashes",
        "pylock.toml": f"{asked.file}, a lock, handed to uv as it is",
        "uv.lock": f"{asked.file}, a lock",
        "Pipfile.lock": f"{asked.file}, a lock",
    }
    wish = f"  ({asked.python_from} asks for {asked.python})" if asked.python else ""
    lines = [
        f"source     {source}" + (f"  at {commit[:12]}" if commit else ""),
        f"says       {says.get(asked.kind, asked.file or '')}",
        f"python     {python.version if python else 'none that fits'}{wish}",
    ]
    shown = [re.sub(r" --hash=\S+", "", redact(line)) for line in asked.lines]
    lines += _block("installs", shown or (["what the lock says"] if asked.pylock else []))
    lines += _block("at most", [redact(line) for line in asked.constraints])
    lines += _block("index", [redact(url) for url in (*asked.index_urls, *asked.find_links)])
    lines += _block("versions", pins or [])
    lines += _block("notebooks", asked.notebooks, limit=_SHOWN)
    lines += _block("preloads", preload if asked.pool.fork else ["nothing: engines are not forked"])
    lines += _block(
        "notices", [f"{one.file}: {one.message}" if one.file else one.message for one in asked.notices]
    )
    if missing:
        width = max(len(one.module) for one in missing)
        lines += _block("missing", [f"{one.module:<{width}}  {_who(one)}" for one in missing])
    if words := _with(missing):
        every = [word for one in (*extra, *words) for word in ("--with", one)]
        lines += ["", f"Next: ipython-builder up {shlex.join([source, *every])}"]
        if asked.file is None:
            lines += ["  or write these names into requirements.txt, one a line"]
    return lines


def _who(one: MissingImport) -> str:
    kind = "notebooks" if all(name.endswith(".ipynb") for name in one.notebooks) else "files"
    by = one.notebooks[0] if len(one.notebooks) == 1 else f"{len(one.notebooks)} {kind}"
    return f"imported by {by}" + ("" if one.distribution else "; no package is known for it")


def _with(missing: Iterable[MissingImport]) -> list[str]:
    """What to install for the missing imports, as far as that is known."""
    return list(dict.fromkeys(one.distribution for one in missing if one.distribution))


def _block(name: str, rows: Sequence[str], limit: int | None = None) -> list[str]:
    kept = list(rows[:limit])
    if limit is not None and len(rows) > limit:
        kept.append(f"… and {len(rows) - limit} more")
    return [f"{name if number == 0 else '':<10} {row}" for number, row in enumerate(kept)]
