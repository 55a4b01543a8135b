"""`template kubernetes`: the templates' objects as a Kubernetes without OpenShift's kinds has them."""

from __future__ import annotations

import click

from ipython_builder.cli.common import Context, verb_of_text

EPILOG = """\b
Examples:
  ipython-builder template kubernetes registry.example.org/me/notebooks --label x -n 4 > x.yaml
  openssl rand -hex 32 | kubectl create secret generic ipcluster-x --from-file=key=/dev/stdin
  kubectl apply -f x.yaml
"""


@click.command("kubernetes", epilog=EPILOG, short_help="Print the objects for plain Kubernetes")
@click.argument("image")
@click.option("--label", required=True, metavar="L", help="The cluster's label.")
@click.option("--user", default="me", show_default=True, metavar="U", help="The viewer's user label.")
@click.option("-n", "--engines", type=int, default=2, show_default=True, metavar="N", help="Engines.")
@click.option("--host", default="", metavar="NAME", help="Public host name, and an Ingress for it.")
@click.option("--tls-secret", default="", metavar="NAME", help="Secret with the certificate of --host.")
@click.option("--ingress-class", default="", metavar="NAME", help="Class of the Ingress.")
@click.option("--gateway", default="", metavar="[NAMESPACE/]NAME", help="Gateway instead of an Ingress.")
@verb_of_text
def command(
    context: Context, image: str, label: str, user: str, engines: int, host: str, tls_secret: str,
    ingress_class: str, gateway: str,
) -> None:  # fmt: skip
    """Print a notebook and a cluster of IMAGE as objects of plain Kubernetes, in YAML, for `kubectl apply`.

    They are those of `up --on kubernetes`, but for the Secret with the key, which belongs in no file: its
    name is ipcluster-LABEL, and it has the key in its entry `key`.
    """
    from ipython_builder import cluster, documents
    from ipython_builder.build import reference
    from ipython_builder.platforms import objects
    from ipython_builder.platforms.base import check_engines
    from ipython_builder.platforms.public import Public

    cluster.check_label(label)
    cluster.check_label(user, "user label")
    check_engines(engines)
    reference.parse(image)
    names = objects.Names(label, user)
    public = Public(host, tls_secret, ingress_class, gateway)
    public.check()
    objects.check_names(names, "", route=False)
    order = objects.Order(names, engines, source="", image=image, public=public)
    every = objects.cluster_of(order, openshift=False) + objects.viewer_of(order, openshift=False)
    context.print(documents.list_as_yaml(every).rstrip())
    context.reporter.log(f"the key goes into the Secret {names.cluster}, entry `key`: 32 random bytes")
