"""What is installed in an environment, read from its files: names, versions, origins. Nothing is run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OURS = "ipython-cluster"
_INDEX = ""


@dataclass(frozen=True)
class Installed:
    """One distribution.

    Attributes:
        name: canonical.
        origin: empty for a package index; else what it was made from, as a requirement's URL.
        info: its ``.dist-info`` folder.
    """

    name: str
    version: str
    origin: str
    info: Path
    _distribution: Distribution = field(repr=False, compare=False)

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def license(self) -> str:
        """What its metadata say, if that is a name and not the whole text."""
        metadata = self._distribution.metadata
        names = (name for name in ("License-Expression", "License") if name in metadata)
        said = next((metadata[name] for name in names), "")
        return said.strip() if len(said) <= 100 and "\n" not in said.strip() else ""

    def requirements(self) -> Iterator[Requirement]:
        """What it needs without any of its extras, on the Python that runs us."""
        for text in self._distribution.requires or ():
            try:
                found = Requirement(text)
            except InvalidRequirement:
                continue
            if found.marker is None or found.marker.evaluate({"extra": ""}):
                yield found

    def files(self, root: Path) -> Iterator[Path]:
        """Its files below `root` that are there, relative to it, with the bytecode of its modules."""
        site_packages = self.info.parent
        for name in self._distribution.files or ():
            path = Path(os.path.normpath(site_packages / str(name)))
            if not path.is_relative_to(root):
                continue  # a RECORD is whatever its package's author wrote into it
            if path.is_file() or path.is_symlink():
                yield path.relative_to(root)
            if path.suffix == ".py":
                for pyc in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                    yield pyc.relative_to(root)


def site_packages(root: Path) -> Path:
    """Where the packages of the environment at `root` are, whatever its Python."""
    return next(iter(sorted(root.glob("lib/python3.*/site-packages"))), root / "lib")


def read(root: Path) -> list[Installed]:
    """All distributions in the environment at `root`, by name."""
    found: dict[str, Installed] = {}
    for info in sorted(site_packages(root).glob("*.dist-info")):
        distribution = PathDistribution(info)
        if (info / "METADATA").is_file() and "Name" in distribution.metadata:
            name = distribution.metadata["Name"]
            canonical = canonicalize_name(name)
            version = distribution.version
            found[canonical] = Installed(canonical, version, _origin(distribution), info, distribution)
    return sorted(found.values(), key=lambda one: one.name)


def marks(root: Path) -> dict[str, tuple[int, int]]:
    """Name of each ``.dist-info`` folder -> what changes when its distribution is installed anew."""
    marks = {}
    for record in site_packages(root).glob("*.dist-info/RECORD"):
        status = record.stat()
        marks[record.parent.name] = (status.st_ino, status.st_mtime_ns)
    return marks


def mend(info: Path) -> None:
    """Take from a distribution what holds the date of its installation, and is of use to a cache only."""
    cache, record = info / "uv_cache.json", info / "RECORD"
    if cache.is_file():
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(line for line in lines if not line.startswith(f"{info.name}/{cache.name},"))
        # Written anew: the file may be one with that of a cache.
        half = record.with_name(".RECORD")
        half.write_text(kept, encoding="utf-8")
        half.replace(record)
        cache.unlink()


def _origin(distribution: Distribution) -> str:
    """From PEP 610's ``direct_url.json``, without credentials."""
    from ipython_builder.commands import redact

    try:
        said = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return _INDEX
    url = redact(str(said.get("url", "")))
    if vcs := said.get("vcs_info"):
        return f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
    return url
