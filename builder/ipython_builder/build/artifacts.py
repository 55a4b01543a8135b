"""What one image saves for the next build of it: the installed distributions that are not the builder's own.

`save` runs in the previous image and writes a tar, `find` and `Saved` run in the next build, where S2I has
unpacked that tar. Nothing is downloaded, and files are written once: beside their place, then renamed.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ipython_builder.build import bales, bill, installed, placing
from ipython_builder.build.installed import Installed
from ipython_builder.places import Places

MARKER = "etc/environment.json"
LOCK = "etc/requirements.lock"


@dataclass(frozen=True)
class Marker:
    """What was installed, as ``environment.json`` says it.

    Attributes:
        key: of what was asked for; empty where not all that it brought is there.
        base: of the builder image that it was installed over.
        python: its version.
        packages: name -> version of what was installed over the builder image's own.
    """

    key: str
    base: str
    python: str
    packages: Mapping[str, str]

    def __str__(self) -> str:
        return json.dumps(vars(self) | {"packages": dict(self.packages)}, indent=1, sort_keys=True) + "\n"


def marker(path: Path) -> Marker | None:
    """The marker in this file; None where there is none, or none of ours."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        packages = {str(name): str(version) for name, version in said["packages"].items()}
        return Marker(str(said["key"]), str(said["base"]), str(said["python"]), packages)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(places: Places, stream: IO[bytes]) -> int:
    """Write to `stream` a tar of what was installed over the builder image; return how many distributions.

    A tar without members where there is nothing to save, or where it cannot be told.
    """
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        made = marker(places.marker)
        if made is None:
            return 0
        root = places.app_root
        kept = [one for one in installed.read(root) if made.packages.get(one.name) == one.version]
        # A hook may have put other versions in their place; then the rest is worth saving all the same.
        whole = len(kept) == len(made.packages)
        said = Marker(made.key if whole else "", made.base, made.python, {o.name: o.version for o in kept})
        _add_text(archive, MARKER, str(said))
        if places.lock.is_file():
            _add_text(archive, LOCK, places.lock.read_text(encoding="utf-8"))
        names = {name for one in kept for name in one.files(root)}
        bales.pack(archive, root, sorted(names))
        return len(kept)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    import io

    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), 0o664
    archive.addfile(info, io.BytesIO(text.encode()))


@dataclass(frozen=True)
class Saved:
    """What a previous image has saved, where S2I has put it.

    Attributes:
        lock: its requirements.lock, for the hashes.
    """

    root: Path
    marker: Marker
    lock: Mapping[str, bill.Entry]
    distributions: tuple[Installed, ...]

    def restore(self, names: Collection[str], places: Places) -> int:
        """Put the distributions of these names into their place; return how many there were."""
        chosen = [one for one in self.distributions if one.name in names]
        for one in chosen:
            for name in sorted(set(one.files(self.root))):
                placing.move(self.root / name, places.app_root / name)
        return len(chosen)


def find(places: Places, base: str, beside: Path) -> Saved | None:
    """What a previous image has saved, if there is anything whole.

    Args:
        base: of this builder image; what was installed over another one is not even unpacked.
        beside: a folder that is not there, on the file system of the environment; files are written to it.

    Raises:
        OSError: `beside` cannot be written.
    """
    root = upload = places.artifacts
    made = marker(upload / MARKER)
    if made is None:
        return None
    if made.base != base:
        return Saved(upload, made, {}, ())
    if bales.parts(upload):
        root = beside
        if not bales.unpack(upload, root):
            return None
    # The builder looked up who is there; a marker may promise what the way here has lost.
    found = [one for one in installed.read(root) if made.packages.get(one.name) == one.version]
    if len(found) != len(made.packages):
        made = Marker("", made.base, made.python, made.packages)
    try:
        lock = bill.parse((upload / LOCK).read_text(encoding="utf-8"))
    except OSError:
        lock = {}
    return Saved(root, made, lock, tuple(found))
