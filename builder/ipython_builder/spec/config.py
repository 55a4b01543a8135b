""".ipython-builder.toml: what no other file has a place for."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ipython_builder.errors import RepositoryError
from ipython_builder.spec import python
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Where
from ipython_builder.spec.pyproject import strings
from ipython_builder.spec.requirements import index_url

FILE = ".ipython-builder.toml"
_KEYS = ("requirements", "extra-index-urls", "preload", "notebooks", "python")


@dataclass(frozen=True)
class Config:
    """The file's content; every key may be absent."""

    requirements: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    preload: tuple[str, ...] | None = None
    notebooks: tuple[str, ...] | None = None
    python: str | None = None


def read(tree: Tree) -> Config:
    """Read it, if it is there.

    Raises:
        RepositoryError: not TOML, an unknown key (with the nearest known one), a value of the wrong kind.
    """
    table = tree.toml(FILE)
    if table is None:
        return Config()
    where = Where(FILE)
    for key in table:
        if key not in _KEYS:
            close = difflib.get_close_matches(key.replace("_", "-"), _KEYS, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KEYS)}"
            raise RepositoryError(f"{FILE}: unknown key {key!r}", hint)
    wanted = table.get("python")
    if wanted is not None and not isinstance(wanted, str):
        raise RepositoryError(f"{FILE}: python must be a text such as '3.11'", "put it into quotes")
    preload = strings(table, "preload", FILE)
    for module in preload:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
            raise RepositoryError(
                f"{FILE}: {module!r} in preload is no module", "write it as in numpy or scipy.stats"
            )
    globs = strings(table, "notebooks", FILE)
    for pattern in globs:
        if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise RepositoryError(
                f"{FILE}: {pattern!r} in notebooks leads out of the checkout", "write it as in **/*.ipynb"
            )
    return Config(
        tuple(strings(table, "requirements", FILE)),
        tuple(index_url(url, where) for url in strings(table, "extra-index-urls", FILE)),
        tuple(preload) if "preload" in table else None,
        tuple(globs) if "notebooks" in table else None,
        python.wish(wanted, where) if wanted is not None else None,
    )
