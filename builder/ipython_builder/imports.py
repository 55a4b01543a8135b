"""Which modules the notebooks import: which nothing provides, and which engines can have beforehand."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from ipython_builder.cells import (
    Wanted,
    code_cells,
    made_by,
    of_cell,
    of_code,
    text_of,
    wanted_of_cell,
    wanted_of_code,
)
from ipython_builder.errors import RepositoryError
from ipython_builder.import_names import BRINGS, DISTRIBUTIONS, GONE, ONE_PROCESS, PYTHON2
from ipython_builder.spec import Spec
from ipython_builder.spec.notebooks import files

# What every environment has from us.
_OURS = ("ipykernel", "ipyparallel", "pip", "ipython-cluster")
_SUFFIXES = (".py", ".pyx", ".so")
# What an engine imports itself.
_ENGINE = frozenset({"IPython", "ipykernel", "ipyparallel", "ipython_cluster", "traitlets", "zmq"})


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
    used = scan(spec.root, spec.notebooks, not_below=_installed(spec))
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
    own = list(files(root, _SUFFIXES)) if notebooks else []
    beside = {(root / name).parent for name in notebooks}
    for path in _helpers(own, beside, not_below):
        for module in of_code(text_of(path)):
            used[module].add(path.relative_to(root).as_posix())
    local = made | _local(root, own, beside)
    return {module: where for module, where in used.items() if not _known(module, local)}


def preload(spec: Spec, *, folders: Sequence[Path] | None = None) -> tuple[str, ...]:
    """What engines shall have imported before they start, in the order in which the notebooks import it.

    Whole dotted names. Never the standard library, what an engine has anyway, what must not be shared between
    processes, or the repository's own modules: an edit of those would not be seen.

    Args:
        folders: where the environment's packages are. With them, what may be a module or a function
            (``pyplot`` of ``from matplotlib import pyplot``) is looked up there, and nothing is run for it.
            None: only what is a module without doubt.

    Raises:
        RepositoryError: the repository wants its own module to be preloaded.
    """
    own = list(files(spec.root, _SUFFIXES))
    beside = _beside(spec)
    wanted, made = _wanted(spec, own)
    if spec.pool.preload:
        mine = [path for path in own if not _is_in(path, _installed(spec))]
        _refuse_own(spec, made | _local(spec.root, mine, beside, far=False))
    never = made | _local(spec.root, own, beside) | _ENGINE | ONE_PROCESS | PYTHON2
    found = [
        module
        for module, surely in wanted
        if not _known(module, never) and (surely or (folders is not None and _there(module, folders)))
    ]
    kept = [name for name in (*found, *spec.pool.preload) if not _below(name, spec.pool.exclude)]
    return tuple(dict.fromkeys(kept))


def _wanted(spec: Spec, own: Sequence[Path]) -> tuple[list[Wanted], set[str]]:
    """(what notebooks and the modules beside them import, the modules that notebooks write)."""
    wanted: list[Wanted] = []
    made: set[str] = set()
    for name in spec.notebooks:
        for cell in code_cells(spec.root / name):
            wanted += wanted_of_cell(cell)
            made |= made_by(cell)
    for path in _helpers(own, _beside(spec), _installed(spec)):
        wanted += wanted_of_code(text_of(path))
    return wanted, made


def _refuse_own(spec: Spec, local: set[str]) -> None:
    for module in spec.pool.preload:
        if module.partition(".")[0] in local:
            raise RepositoryError(
                f"{spec.pool.file}: {module!r} in preload of [pool] is a module of this repository: engines "
                "that have it already would not see your edits",
                f"remove {module} from preload; engines import it from its file when they need it",
            )


def _below(module: str, names: Iterable[str]) -> bool:
    """Is it one of `names`, or in the package of one?"""
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def _there(module: str, folders: Sequence[Path]) -> bool:
    """Is there a file of this module?"""
    *packages, name = module.split(".")
    for folder in folders:
        place = folder.joinpath(*packages)
        try:
            if (place / name).is_dir() or (place / f"{name}.py").is_file() or any(place.glob(f"{name}.*so")):
                return True
        except OSError:
            continue  # longer than any name of a file
    return False


def _helpers(own: Sequence[Path], beside: set[Path], not_below: Sequence[Path]) -> list[Path]:
    """The modules beside notebooks whose imports count as the notebooks' own."""
    return [
        path
        for path in own
        if path.suffix == ".py" and path.parent in beside and not _is_tooling(path, not_below)
    ]


def _beside(spec: Spec) -> set[Path]:
    """The folders that have notebooks."""
    return {(spec.root / name).parent for name in spec.notebooks}


def _installed(spec: Spec) -> list[Path]:
    """The folders of the repository that are packages of their own, and are installed."""
    return [path for path in spec.local_paths if path != spec.root]


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _is_tooling(path: Path, not_below: Sequence[Path]) -> bool:
    """Is it for building or testing, or in a package that says itself what it needs?"""
    tooling = path.name in ("setup.py", "conftest.py") or path.name.startswith("test_")
    return tooling or _is_in(path, not_below)


def _local(root: Path, own: Sequence[Path], beside: set[Path], *, far: bool = True) -> set[str]:
    """Names under which the repository's own files can be imported; `far`: after a change of sys.path too."""
    near = {root, root / "src", *beside}
    found = set()
    for path in own:
        stem = path.name.partition(".")[0]
        # Deeper ones are reached by changing sys.path, but must not hide a package that everybody knows.
        if path.parent in near or (far and stem not in DISTRIBUTIONS):
            found.add(stem)
        for folder in path.relative_to(root).parents:
            if folder.name and ((root / folder).parent in near or (far and path.name == "__init__.py")):
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
