"""What is to be installed, as a folder: all that an image's dependencies depend on, and nothing else.

A changed notebook leaves every byte of it as it was, so an engine finds the layer it has made before.

    .ipython-builder/request.json    the specification
    pylock.toml, local packages      where they are in the repository
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ipython_builder import keys
from ipython_builder.errors import BuilderError, RepositoryError
from ipython_builder.spec import Spec

# Hidden, so that no package build takes it for its own. The folder is where S2I has a repository too, so that
# a local package has the same path in an image, whoever built it.
FILE = ".ipython-builder/request.json"
_FORMAT = 1  # raise it when an older tool could not read it
_ROOT = "<root>"
_FIELDS = (
    *("file", "kind", "lines", "constraints", "hashed", "python", "python_from", "index_urls", "find_links"),
    *("options", "prereleases", "names", "system_packages"),
)
# Zip files, and so wheels, know no earlier day; the zones of this world are two days wide.
EARLIEST = 315532800 + 86400


def dump(spec: Spec, folder: Path) -> None:
    """Write `spec` and the files it points at into `folder`, which is made.

    Raises:
        RepositoryError: it needs a package that is not in the folder that becomes the image's.
        OSError: it cannot be written.
    """
    for path in spec.local_paths:
        if not path.is_relative_to(spec.root):
            raise RepositoryError(
                f"{os.path.relpath(path, spec.root)} is above the context directory, all that an image has",
                "build without --context-dir, or put the package into that folder",
            )
    found: dict[str, Any] = {name: _moved(getattr(spec, name), spec.root, _ROOT) for name in _FIELDS}
    found["local_paths"] = [path.relative_to(spec.root).as_posix() for path in spec.local_paths]
    found["pylock"] = spec.pylock.relative_to(spec.root).as_posix() if spec.pylock else None
    found["format"] = _FORMAT
    sources = [path for path in (spec.pylock,) if path]
    for path in spec.local_paths:
        sources += [path] if path.is_file() else keys.members(path)
        if path.is_dir():
            (folder / path.relative_to(spec.root)).mkdir(parents=True, exist_ok=True)
    for source in sources:
        target = folder / source.relative_to(spec.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o775 if os.access(source, os.X_OK) else 0o664)
    file = folder / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    file.chmod(0o664)
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.utime(Path(inner, name), (EARLIEST, EARLIEST))
        os.chmod(inner, 0o775)  # noqa: S103
        os.utime(inner, (EARLIEST, EARLIEST))


def load(folder: Path) -> Spec:
    """The specification in `folder`, with paths below it; it has no notebooks.

    Raises:
        BuilderError: it was written by a tool of another version, or is not there.
    """
    folder = folder.resolve()
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        values: dict[str, Any] = {}
        for name in _FIELDS:
            value = _moved(found[name], None, str(folder))
            values[name] = tuple(value) if isinstance(value, list) else value
        pylock = folder / found["pylock"] if found["pylock"] else None
        local_paths = tuple(folder / path for path in found["local_paths"])
        return Spec(root=folder, pylock=pylock, local_paths=local_paths, **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuilderError(
            f"{folder / FILE} is no request that this version reads ({error})",
            "make the builder image again, with the version of ipython-builder that builds: `make images`",
        ) from error


def _moved(value: Any, root: Path | None, to: str) -> Any:
    """`value` with every path that begins with `root` (None: with the mark) beginning with `to`."""
    if isinstance(value, tuple | list):
        return [_moved(one, root, to) for one in value]
    if not isinstance(value, str):
        return value
    if root is None:
        uri = Path(to).as_uri() if to.startswith("/") else to
        return value.replace(f"file://{_ROOT}", uri).replace(_ROOT, to)
    value = re.sub(rf"{re.escape(root.as_uri())}(?=[/\s\[]|$)", f"file://{to}", value)
    return re.sub(rf"\A{re.escape(str(root))}(?=/|$)", to, value)
