""".ipython-builder.toml: what no other file has a place for.

It stands in the folder that is used, or, where that one has none, in the repository's root; the nearer one
counts alone.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ipython_builder.errors import RepositoryError
from ipython_builder.import_names import is_module
from ipython_builder.spec import python
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Pool, Where
from ipython_builder.spec.pyproject import strings
from ipython_builder.spec.requirements import index_url

FILE = ".ipython-builder.toml"
_KEYS = ("requirements", "extra-index-urls", "notebooks", "python", "pool")
_POOL_KEYS = ("preload", "exclude", "fork", "timeout")
_MAX_SECONDS = 3600


@dataclass(frozen=True)
class Config:
    """The file's content; every key may be absent.

    Attributes:
        tree: the folder that the file's paths and patterns start from.
        file: its name as seen from the folder that is used; in the root above that, with ``../`` before.
    """

    tree: Tree
    file: str = FILE
    requirements: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    notebooks: tuple[str, ...] | None = None
    python: str | None = None
    pool: Pool = field(default_factory=Pool)


def read(tree: Tree, above: Tree | None = None) -> Config:
    """Read it, if it is there.

    Args:
        tree: the folder that is used.
        above: the repository's root, where that is another folder.

    Raises:
        RepositoryError: not TOML, an unknown key (with the nearest known one), a value of the wrong kind.
    """
    file = FILE
    if above is not None and not tree.exists(FILE):
        file = os.path.relpath(above.root / FILE, tree.root)
        tree = above
    try:
        table = tree.toml(FILE)
    except RepositoryError as error:
        hint = (error.hint or "").replace(FILE, file)
        raise RepositoryError(error.message.replace(FILE, file, 1), hint) from error
    if table is None:
        return Config(tree)
    _check_keys(table, _KEYS, file, "", dict.fromkeys(_POOL_KEYS, "[pool]"))
    wanted = table.get("python")
    if wanted is not None and not isinstance(wanted, str):
        raise RepositoryError(f"{file}: python must be a text such as '3.11'", "put it into quotes")
    globs = strings(table, "notebooks", file)
    for pattern in globs:
        if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise RepositoryError(
                f"{file}: {pattern!r} in notebooks leads out of the checkout", "write it as in **/*.ipynb"
            )
    where = Where(file)
    return Config(
        tree,
        file,
        tuple(strings(table, "requirements", file)),
        tuple(index_url(url, where) for url in strings(table, "extra-index-urls", file)),
        tuple(globs) if "notebooks" in table else None,
        python.wish(wanted, where) if wanted is not None else None,
        _pool(table.get("pool", {}), file),
    )


def contradictions(asked: Asked, config: Config) -> None:
    """Give notice of what is asked for and forbidden at once."""
    for module in config.pool.preload:
        if any(f"{module}.".startswith(f"{name}.") for name in config.pool.exclude):
            asked.notice(config.file, f"{module} is in preload and in exclude of [pool]: it is not preloaded")


def _pool(table: Any, file: str) -> Pool:
    if not isinstance(table, dict):
        raise RepositoryError(f"{file}: pool must be a table", "write [pool] on a line of its own")
    _check_keys(table, _POOL_KEYS, file, " in [pool]", {})
    fork = table.get("fork", True)
    if not isinstance(fork, bool):
        raise RepositoryError(f"{file}: fork in [pool] must be true or false", "write it without quotes")
    seconds = table.get("timeout", Pool.timeout)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_SECONDS:
        raise RepositoryError(
            f"{file}: timeout in [pool] must be a number of seconds, above 0 and up to {_MAX_SECONDS}",
            f"write timeout = {Pool.timeout:.0f}, or remove the line",
        )
    return Pool(
        _modules(table, "preload", file), _modules(table, "exclude", file), fork, float(seconds), file
    )


def _modules(table: dict[str, Any], key: str, file: str) -> tuple[str, ...]:
    modules = strings(table, key, f"{file}, [pool]")
    for module in modules:
        if not is_module(module):
            raise RepositoryError(
                f"{file}: {module!r} in {key} of [pool] is no module", "write it as in numpy or scipy.stats"
            )
    return tuple(dict.fromkeys(modules))


def _check_keys(
    table: dict[str, Any], known: Collection[str], file: str, place: str, elsewhere: dict[str, str]
) -> None:
    """Raise for the first key that is not known; `elsewhere`: keys of other tables."""
    for key in table:
        if key in known:
            continue
        if key in elsewhere:
            hint = f"it is a key of {elsewhere[key]}: write it below that line"
        else:
            close = difflib.get_close_matches(key.replace("_", "-"), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise RepositoryError(f"{file}: unknown key {key!r}{place}", hint)
