"""`s2i usage`: what the builder image is and how it is used."""

from __future__ import annotations

import click

from ipython_builder._version import __version__

TEXT = f"""\
ipython-builder {__version__}: from a git repository of notebooks to one image that is notebook server,
controller or engine of a parallel cluster, all three with the same environment.

Make an image:
  s2i build https://host/me/notebooks.git ipython-builder myimage
  s2i build https://host/me/notebooks.git ipython-builder myimage --incremental     the next time
  ipython-builder build https://host/me/notebooks.git myimage                       without s2i

What of the repository counts: uv.lock, pylock.toml, requirements.txt, requirements.in, pyproject.toml,
environment.yml or Pipfile.lock say what is installed; .ipython-builder.toml says the rest;
.ipython-builder/pre-build and post-build are run before and after the installation.

Run it:
  podman run -p 8080:8080 myimage                                    a notebook; the log says how to sign in
  podman run -e IPYTHON_CONTAINER_TYPE=controller … myimage          the cluster's controller
  podman run -e IPYTHON_CONTAINER_TYPE=engine … myimage              an engine
  podman run myimage ipython-builder --help                          what else there is

Variables:
  IPYTHON_CONTAINER_TYPE   viewer (if not given), controller or engine
  IPYTHON_CLUSTER_LABEL    the cluster that it belongs to
  IPYTHON_CLUSTER_KEY_FILE the file with the cluster's key; by itself /run/secrets/ipython-cluster/key is read
  IPYTHON_CONTROLLER_HOST  where the controller is, if not at ipcontroller-<label>
  IPYTHON_ENGINES          engines in a container: a number, or auto for its CPUs
  IPYTHON_USER_PASSWORD    the notebook server's password; a random one if not given

In the image: environment /opt/app-root, notebooks /opt/app-root/src, what is installed
/opt/app-root/etc/requirements.lock and sbom.cdx.json. It runs under any user of group 0.
"""


@click.command("usage", short_help="Say what the builder image is and how it is used")
def command() -> None:
    """Say what the builder image is and how it is used."""
    click.echo(TEXT, nl=False)
