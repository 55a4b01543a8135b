"""Write all.yaml, one file for `oc create -f URL`, from the files above this folder: `make templates`.

Each file stays as it is, with its comments, as items of one List. A test makes it again and compares.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
ALL = Path(__file__).resolve().parent / "all.yaml"
BUILDER = "ipython-builder.yaml"  # a List itself, and first: the templates' images stand on its own
_HEAD = """\
# All that an OpenShift project needs: the builder images, which build themselves, and the four templates.
#
#     oc create -f URL-OF-THIS-FILE
#
# Made by `make templates` from the files in the folder above: change those, not this one.
apiVersion: v1
kind: List
items:
"""


def text() -> str:
    """The whole file."""
    items = [(FOLDER / BUILDER).read_text(encoding="utf-8").partition("\nitems:\n")[2]]
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name != BUILDER:
            what, start, template = path.read_text(encoding="utf-8").partition("apiVersion: ")
            # Its first line has the dash, the others are below it.
            items.append(what + "- " + textwrap.indent(start + template, "  ").removeprefix("  "))
    return _HEAD + "".join(items)


if __name__ == "__main__":
    ALL.write_text(text(), encoding="utf-8")
