"""Which modules the notebooks import, and which of them nothing provides."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from ipython_builder.cells import code_cells, of_cell, of_code, text_of
from ipython_builder.import_names import BRINGS, DISTRIBUTIONS, GONE, PYTHON2
from ipython_builder.spec import Spec
from ipython_builder.spec.notebooks import files

# What every environment has from us.
_OURS = ("ipykernel", "ipyparallel", "pip", "ipython-cluster")


@dataclass(frozen=True)
class MissingImport:
    """A module that notebooks import and nothing provides.

    Attributes:
        module: its top-level name.
        distribution: what to install for it; None where that is not known (it may be a file that was not
            committed, one the notebook makes, or a name of Python 2).
        notebooks: the notebooks and modules beside them that import it, relative and sorted.
    """

    module: str
    distribution: str | None
    notebooks: tuple[str, ...]


def missing(spec: Spec, *, resolved: Iterable[str] | None = None) -> tuple[MissingImport, ...]:
    """What nothing provides, the most used first.

    Args:
        resolved: names of all distributions that will be installed, where they are known.
    """
    used = scan(spec.root, spec.notebooks, not_below=[path for path in spec.local_paths if path != spec.root])
    names = (*spec.names, *_OURS, *_declared(spec))
    if resolved is None:
        provided = _with_brought(names)
    else:
        provided = _with_brought(_OURS) | {canonicalize_name(name) for name in (*names, *resolved)}
    found = [
        MissingImport(module, _suggestion(module), tuple(sorted(where)))
        for module, where in used.items()
        if not _provided(module, provided)
    ]
    return tuple(sorted(found, key=lambda one: (-len(one.notebooks), one.module.lower(), one.module)))


def scan(root: Path, notebooks: Sequence[str], *, not_below: Sequence[Path] = ()) -> dict[str, set[str]]:
    """Imported module -> who imports it, without the standard library and the repository's own modules.

    Args:
        notebooks: relative paths.
        not_below: folders whose modules are not looked into (packages that say themselves what they need).
    """
    used: dict[str, set[str]] = defaultdict(set)
    made: set[str] = set()
    for name in notebooks:
        for cell in code_cells(root / name):
            modules, written = of_cell(cell)
            made |= written
            for module in modules:
                used[module].add(name)
    own = list(files(root, (".py", ".pyx", ".so"))) if notebooks else []
    beside = {(root / name).parent for name in notebooks}
    for path in own:
        if path.suffix == ".py" and path.parent in beside and not _is_tooling(path, not_below):
            for module in of_code(text_of(path)):
                used[module].add(path.relative_to(root).as_posix())
    local = made | _local(root, own, beside)
    return {module: where for module, where in used.items() if not _known(module, local)}


def _is_tooling(path: Path, not_below: Sequence[Path]) -> bool:
    """Is it for building or testing, or in a package that says itself what it needs?"""
    tooling = path.name in ("setup.py", "conftest.py") or path.name.startswith("test_")
    return tooling or any(path.is_relative_to(folder) for folder in not_below)


def _local(root: Path, own: Sequence[Path], beside: set[Path]) -> set[str]:
    """Names under which the repository's own files can be imported."""
    near = {root, root / "src", *beside}
    found = set()
    for path in own:
        stem = path.name.partition(".")[0]
        # Deeper ones are reached by changing sys.path, but must not hide a package that everybody knows.
        if path.parent in near or stem not in DISTRIBUTIONS:
            found.add(stem)
        for folder in path.relative_to(root).parents:
            if folder.name and ((root / folder).parent in near or path.name == "__init__.py"):
                found.add(folder.name)
    return found


def _known(module: str, local: set[str]) -> bool:
    top = module.partition(".")[0]
    return not top or top in local or top in sys.stdlib_module_names or top in GONE or top == "__main__"


def _provided(module: str, names: set[str]) -> bool:
    candidates = {canonicalize_name(module), *(DISTRIBUTIONS.get(module, ()))}
    top = module.partition(".")[0]
    if top != module:
        candidates |= set(DISTRIBUTIONS.get(top, ()))
        # google.cloud and its like: many distributions fill one namespace.
        if any(name.startswith(canonicalize_name(module) + "-") for name in names):
            return True
    for name in tuple(candidates):
        candidates |= {f"python-{name}", f"py{name}", f"{name}-python", f"{name}-base", f"{name}-binary"}
    return bool(candidates & names)


def _suggestion(module: str) -> str | None:
    if module in PYTHON2:
        return None
    top = module.partition(".")[0]
    return next(iter(DISTRIBUTIONS.get(module) or DISTRIBUTIONS.get(top) or ()), None)


def _with_brought(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = [str(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(BRINGS.get(name, ()))
    return found


def _declared(spec: Spec) -> Iterator[str]:
    """What local packages say in their pyproject.toml that they need."""
    import tomllib

    for path in spec.local_paths:
        try:
            project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
            for text in project.get("dependencies", []):
                yield canonicalize_name(re.split(r"[^\w.-]", text.strip(), maxsplit=1)[0])
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # it was judged when the specification was read; here it is only asked for names
