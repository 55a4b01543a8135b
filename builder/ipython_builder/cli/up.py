"""`up`: from a repository to a running notebook and cluster."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ipython_builder.cli.common import (
    Context,
    install_options,
    namespace_options,
    platform,
    source_options,
    verb,
)
from ipython_builder.errors import UsageError
from ipython_builder.events import counted
from ipython_builder.processes import MARK

PLATFORMS = ("local", "podman", "docker", "kubernetes", "openshift")
EPILOG = """\b
Examples:
  ipython-builder up . -n 4
  ipython-builder up https://host/me/notebooks.git --ref v2 --context-dir course
  ipython-builder up lectures.bundle --with numpy --with 'scipy>=1.11'
  ipython-builder up . --label thesis --json | jq -r .url
  ipython-builder up https://host/me/notebooks.git --on podman -n 4
  ipython-builder up https://host/me/notebooks.git --on openshift -n 8
  ipython-builder up . --on kubernetes --image registry.example.org/me/notebooks --build

The viewer's password is random unless IPYTHON_USER_PASSWORD or --password-file gives one.
"""


class _Inherited(click.Option):
    """An option with a variable that the roles of a cluster have too: in its terminals it says nothing."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return None if MARK in os.environ else super().resolve_envvar_value(ctx)


@click.command("up", epilog=EPILOG, short_help="Start a notebook and its cluster from a repository")
@source_options
@click.option("-n", "--engines", type=int, metavar="N", help="Engines to start.  [default: one a CPU]")
@click.option(
    "--label",
    cls=_Inherited,
    metavar="L",
    envvar="IPYTHON_CLUSTER_LABEL",
    help="The cluster's label.  [default: random]",
)
@click.option(
    "--user",
    cls=_Inherited,
    metavar="U",
    envvar="IPYTHON_USER_LABEL",
    help="The viewer's user label.  [default: random]",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The viewer's port.  [default: 8080 or the next free one]"
)
@click.option(
    "--host",
    "viewer_host",
    metavar="ADDRESS",
    help="Address the viewer listens on, or its public host name in Kubernetes.  [default: 127.0.0.1]",
)
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="File whose first line is the password."
)
@click.option("--upgrade", is_flag=True, help="Ask the index for newer versions.")
@click.option(
    "--allow-hooks", is_flag=True, help="Run the repository's .ipython-builder hooks on this machine."
)
@click.option(
    "--fork/--no-fork",
    default=None,
    help="Fork engines from a process that has imported what notebooks import, or start each by itself."
    "  [default: fork]",
)
@click.option(
    "--on",
    type=click.Choice(PLATFORMS),
    default="local",
    show_default=True,
    help="Where to run: processes of this machine, or containers of an image that is built for it.",
)
@namespace_options
@click.option(
    "--image", metavar="IMAGE", help="Run this image, which a registry has (Kubernetes, OpenShift)."
)
@click.option("--build", is_flag=True, help="Make that image of SOURCE first, and push it.")
@click.option("--tls-secret", metavar="NAME", help="Secret with the certificate of --host (Kubernetes).")
@click.option("--ingress-class", metavar="NAME", help="Class of the Ingress for --host (Kubernetes).")
@click.option(
    "--gateway",
    metavar="[NAMESPACE/]NAME",
    help="Gateway that serves --host, instead of an Ingress (Kubernetes).",
)
@click.option("--builder", metavar="IMAGE", help="The image to build on.  [default: ipython-builder]")
@install_options
@verb
def command(
    context: Context,
    source: str,
    ref: str | None,
    context_dir: str | None,
    extra: tuple[str, ...],
    engines: int | None,
    label: str | None,
    user: str | None,
    port: int | None,
    viewer_host: str | None,
    password_file: Path | None,
    upgrade: bool,
    allow_hooks: bool,
    fork: bool | None,
    on: str,
    builder: str | None,
    namespace: str | None,
    kube_context: str | None,
    image: str | None,
    build: bool,
    tls_secret: str | None,
    ingress_class: str | None,
    gateway: str | None,
    **install: Any,
) -> None:
    """Start a notebook and a parallel cluster with exactly the environment that SOURCE asks for.

    SOURCE is a folder (used in place; this one when left out) or a git URL (https, ssh, file, or a bundle).
    The environment is installed once and shared; a second `up` of the same label says what is there, and puts
    right what is not.
    """
    from ipython_builder import cluster
    from ipython_builder import source as source_module
    from ipython_builder.platforms.base import IN_NAMESPACES, Up, Where
    from ipython_builder.platforms.public import UNSAID, Public

    ours = {"--python": install["python"], "--fork": fork, "--allow-hooks": allow_hooks or None}
    theirs = {
        "--namespace": namespace, "--context": kube_context, "--image": image, "--build": build or None,
    }  # fmt: skip
    served = {"--tls-secret": tls_secret, "--ingress-class": ingress_class, "--gateway": gateway}
    public = UNSAID
    _judge(on, ours, builder)
    if on not in IN_NAMESPACES:
        _without_meaning(on, theirs | served, "it is for --on kubernetes or openshift")
    else:
        _without_meaning(on, {"--port": port}, "there the port is 8080")
        if on == "openshift":
            _without_meaning(on, served, "there a Route has a certificate of the cluster's")
        public = Public(viewer_host, tls_secret, ingress_class, gateway)
        if on == "kubernetes" and not build:
            made = {"--with": extra or None, "--upgrade": upgrade or None, "--builder": builder}
            made |= {"--index-url": install["index_url"], "--ca-bundle": install["ca_bundle"]}
            _without_meaning(on, made, "without --build no image is made")
    if build and image is None:
        raise UsageError("--build makes an image, and none was named", "name it with --image")
    context = replace(context.with_flags(**install), where=Where(on, namespace, kube_context))
    everywhere = platform(context)  # first of all: not on Linux nothing else that could be said is of use
    if user:
        cluster.check_label(user, "user label")
    request = Up(
        source=source_module.parse(source, ref=ref, context_dir=context_dir),
        label=label,
        user=user,
        engines=engines,
        extra=extra,
        password=_password(password_file),
        port=port,
        host=viewer_host,
        upgrade=upgrade,
        allow_hooks=allow_hooks,
        fork=fork,
        builder=builder,
        image=image,
        build=build,
        public=public,
    )
    result = everywhere.up_on(on, request)
    if context.json:
        context.print_json(result)
        return
    label = result["label"]
    here = counted(result["engines"]["registered"], "engine")
    python = result["environment"].get("python")
    if result.get("forward"):
        context.print(f"\n  first      {result['forward']}")
    context.print(f"""
  notebook   {result["url"]}
  password   {result["password"]}
  cluster    {label}: {here}{f", Python {python}" if python else ""}
  notebooks  {result["notebooks"]}

In a notebook:  import ipyparallel as ipp; ipp.Client().ids
Next:           ipython-builder scale {label} 8 · console {label} · run {label} NOTEBOOK · down {label}""")


def _judge(on: str, ours: dict[str, Any], builder: str | None) -> None:
    """Refuse what has no meaning there."""
    if on == "local" and builder:
        raise UsageError("--builder names an image, and none is made here", "leave it out, or --on podman")
    if on != "local":
        _without_meaning(on, ours, "there the image decides")


def _without_meaning(on: str, options: dict[str, Any], why: str) -> None:
    """Refuse those that were given."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning with --on {on}: {why}", f"leave {name} out")


def _password(file: Path | None) -> str | None:
    """A password that was given, from a file or the environment, never from argv."""
    if file is None:
        return os.environ.get("IPYTHON_USER_PASSWORD") or None
    try:
        password = file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password file {file} cannot be read: {error}") from error
    if not password:
        raise UsageError(f"the password file {file} is empty")
    return password
