"""`template`: the OpenShift templates, a group of its own with one file a verb."""

from __future__ import annotations

import click

from ipython_builder.cli import Lazy

VERBS = {
    "ls": "List the templates that come with this tool",
    "show": "Show what a template is and asks for",
    "process": "Turn a template and values into objects",
    "kubernetes": "Print the objects for plain Kubernetes",
    "install": "Put builder images and templates into an OpenShift project",
}

EPILOG = """\b
Examples:
  ipython-builder template ls
  ipython-builder template show ipython-notebook-workspace
  ipython-builder template process ipython-cluster-workspace -p IPYTHON_CLUSTER_LABEL=thesis | oc apply -f -
  ipython-builder template install -n openshift
"""


@click.group(
    "template",
    cls=Lazy,
    table=VERBS,
    module="ipython_builder.cli.template_",
    epilog=EPILOG,
    short_help="List, show, process and install the OpenShift templates",
)
def command() -> None:
    """List, show, process and install the OpenShift templates that come with this tool.

    But for install, no server is asked, and `oc` need not be there. process takes other templates too.
    """
