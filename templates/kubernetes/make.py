"""Write the objects of the kustomization that is here: `make templates`. A test compares."""

from __future__ import annotations

from pathlib import Path

from ipython_builder import documents
from ipython_builder.platforms.objects import Names, Order, cluster_of, viewer_of

FOLDER = Path(__file__).resolve().parent
HEAD = "# Made by `make templates` from the templates in the folder above: change those, not this file.\n"


def texts() -> dict[str, str]:
    """File name -> content."""
    order = Order(Names("mine", "me"), engines=2, source="", image="myimage")
    made = {
        "cluster.yaml": cluster_of(order, openshift=False),
        "viewer.yaml": viewer_of(order, openshift=False),
    }
    return {name: HEAD + documents.list_as_yaml(objects) for name, objects in made.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
