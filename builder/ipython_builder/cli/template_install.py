"""`template install`: builder images and templates into a project, where people find them."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, verb

EPILOG = """\b
Examples:
  ipython-builder template install                    into the current project, for its members
  ipython-builder template install -n openshift       for everyone; needs rights in that project
"""


@click.command(
    "install", epilog=EPILOG, short_help="Put builder images and templates into an OpenShift project"
)
@click.option("-n", "--namespace", metavar="NS", help="Project.  [default: the context's]")
@click.option("--context", "kube_context", metavar="C", help="Context of the kubeconfig.")
@click.option("--repository", metavar="URL", help="Git repository that the builder images are built from.")
@verb
def command(
    context: Context, namespace: str | None, kube_context: str | None, repository: str | None
) -> None:
    """Put the builder images and the templates into a project of OpenShift, or renew what is there.

    The templates are told where their builder lives, so they work in every project. The builder images build
    themselves there: `oc get builds` shows how far they are.
    """
    from ipython_builder.platforms import kubectl, openshift

    kube = kubectl.client("openshift", kubectl.Place(namespace, kube_context))
    with context.reporter.phase("install", f"installing templates in {kube.place.namespace}") as phase:
        made = openshift.install(kube, repository)
        phase.done(f"installed in {kube.place.namespace}")
    if context.json:
        context.print_json({"namespace": kube.place.namespace, "installed": made})
    else:
        context.print("\n".join(made))
