"""What the verbs share: the context object and the options that every one of them has."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipython_builder import settings as settings_module
from ipython_builder.errors import UsageError
from ipython_builder.events import JsonSink, NullSink, PlainSink, Reporter, Sink
from ipython_builder.settings import Settings

if TYPE_CHECKING:
    from ipython_builder.platforms.base import Platform, Where
    from ipython_builder.platforms.table import Everywhere

PROGRESS = ("auto", "plain", "json", "none")


@dataclass(frozen=True)
class Context:
    """What a verb works with.

    Attributes:
        settings: flags over environment over file over defaults.
        reporter: progress, to stderr.
        json: whether stdout shall be one JSON object.
        where: the platform that is named, and what narrows it.
    """

    settings: Settings
    reporter: Reporter
    json: bool
    where: Where | None = None

    def with_flags(self, **flags: Any) -> Context:
        """The same with flags that were given put over the settings."""
        if flags.get("ca_bundle"):
            flags["ca_bundle"] = Path(flags["ca_bundle"]).absolute()
        return replace(self, settings=self.settings.with_flags(**flags))

    def print(self, text: str) -> None:
        """Write a result to stdout."""
        click.echo(text)

    def print_json(self, value: Any) -> None:
        """Write a result to stdout as one JSON document."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--json`, `--progress`, and a `Context` as its first argument."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
    return as_json(verb_of_text(function))


def verb_of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command whose result is no object: without `--json`."""

    @click.option(
        "--progress",
        type=click.Choice(PROGRESS),
        default="auto",
        show_default=True,
        help="How progress is shown.",
    )
    @functools.wraps(function)
    def wrapped(*args: Any, progress: str, as_json: bool = False, **kwargs: Any) -> Any:
        context = Context(settings_module.load(), Reporter(_sink(progress)), as_json)
        return function(context, *args, **kwargs)

    return wrapped


def namespace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where in a Kubernetes."""
    for option in (
        click.option("--context", "kube_context", metavar="C", help="Context of the kubeconfig."),
        click.option(
            "--namespace", metavar="NS", help="Namespace (project) to look in.  [default: the context's]"
        ),
    ):
        function = option(function)
    return function


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where a cluster is, for one that somebody else has made; ours are found by their label."""

    @namespace_options
    @click.option(
        "--on", type=click.Choice(("kubernetes", "openshift")), help="Where it is, if not noted here."
    )
    @click.option("--user", metavar="U", help="Whose viewer, where a cluster in Kubernetes has several.")
    @functools.wraps(function)
    def wrapped(
        context: Context, *args: Any, on: str | None, namespace: str | None, kube_context: str | None,
        user: str | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        from ipython_builder.platforms.base import Where

        where = Where(on, namespace, kube_context, user)
        return function(replace(context, where=where), *args, **kwargs)

    return wrapped


def source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """SOURCE and what narrows it, for the verbs that read a repository."""
    for option in (
        click.option(
            "--with", "extra", multiple=True, metavar="REQ", help="Install this too (may be repeated)."
        ),
        click.option("--context-dir", metavar="DIR", help="The folder inside the repository to use."),
        click.option("--ref", metavar="REF", help="Branch, tag or commit."),
        click.argument("source", metavar="[SOURCE]", default="."),
    ):
        function = option(function)
    return function


def index_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where packages come from."""
    for option in (
        click.option("--index-url", metavar="URL", help="Package index to use instead of PyPI."),
        click.option(
            "--ca-bundle",
            type=click.Path(exists=True, dir_okay=False),
            help="PEM file of your own authorities.",
        ),
    ):
        function = option(function)
    return function


def install_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where packages and Python come from."""
    python = click.option("--python", metavar="PATH|VERSION", help="The Python to install for.")
    return index_options(python(function))


def _sink(progress: str) -> Sink:
    if progress == "none":
        return NullSink()
    if progress == "json":
        return JsonSink()
    if progress == "auto" and sys.stderr.isatty():
        from ipython_builder.cli.render import RichSink  # a tenth of a second that a pipe does not need

        return RichSink()
    return PlainSink()


def platform(context: Context) -> Everywhere:
    """All platforms: a cluster is found where it runs.

    Raises:
        BuilderError: this is not Linux.
    """
    from ipython_builder.platforms.base import need_linux

    need_linux()
    from ipython_builder.platforms.table import Everywhere

    return Everywhere(context.settings, context.reporter, context.where)


def label_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """LABEL; it may be left out where there is only one cluster."""
    return click.argument("label", required=False, shell_complete=complete_label)(function)


def which(local: Platform, label: str | None) -> str:
    """`label`, or the only cluster there is.

    Raises:
        UsageError: none was named and there is not exactly one.
    """
    if label:
        return label
    labels = local.labels()
    if len(labels) == 1:
        return labels[0]
    if not labels:
        raise UsageError("no cluster runs on this machine", "start one: ipython-builder up SOURCE")
    raise UsageError(f"which of {len(labels)} clusters?", f"name one: {', '.join(labels)}")


def complete_label(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The labels there are that begin so."""
    return [label for label in _here().labels() if label.startswith(incomplete)]


def complete_role(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The roles that have logs in the cluster that was named before, or in the only one."""
    local = _here()
    labels = local.labels()
    label = ctx.params.get("label")
    if label not in labels and len(labels) == 1:
        label = labels[0]
    names = local.log_names(label) if label in labels else []
    return [name for name in names if name.startswith(incomplete)]


def _here() -> Everywhere:
    return platform(Context(settings_module.load(), Reporter(), False))
