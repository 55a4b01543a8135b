"""Compiled bytecode as something that is cached like a wheel: compiled once, linked into every environment.

Compiling is nine tenths of a warm install (a scientific stack: 0.8 s to link, 13 s to compile). A ``.pyc``
with an unchecked hash depends on its source alone, not on a path or a time: Python itself mends the file name
inside (``_fix_co_filename``). So what was compiled for one environment serves the next one, per wheel.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ipython_builder import commands
from ipython_builder.events import Reporter

# Test suites inside wheels are a third of all files and are not imported by anyone's notebook.
_SKIPPED = re.compile(r"(?:^|/)tests?/")


@dataclass(frozen=True)
class _Dist:
    """One installed distribution: where its bytecode is stored, and its sources relative to site-packages."""

    store: Path
    sources: tuple[str, ...]


def ensure(
    python: Path, site_packages: Path, store: Path, reporter: Reporter, *, leave: Collection[str] = ()
) -> None:
    """Give every module in `site_packages` its bytecode: linked from `store`, compiled where it is not there.

    Args:
        python: the environment's interpreter.
        store: the folder for this Python's bytecode; it must belong to one exact version of it.
        leave: names of ``.dist-info`` folders whose distributions have their bytecode.
    """
    infos = [info for info in sorted(site_packages.glob("*.dist-info")) if info.name not in leave]
    dists = [_read(info, store) for info in infos]
    missing = [dist for dist in dists if dist.sources and not dist.store.is_dir()]
    for dist in dists:
        if dist.store.is_dir():
            _link(dist.store, site_packages)
    if not missing:
        return
    sources = [source for dist in missing for source in dist.sources]
    with reporter.phase("compile", f"compiling {len(sources)} modules of {len(missing)} packages") as phase:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
            listing.write("".join(f"{source}\n" for source in sources))
            listing.flush()
            # A syntax error in a package's own templates is not ours to judge: -qq, and code 1 is let go.
            # -B and -f: what a .pth file imports when this very Python starts would get a date, and keep it.
            options = "-B -I -W ignore -m compileall -f -qq -j 0 --invalidation-mode unchecked-hash -i"
            compiled = commands.run([python, *options.split(), listing.name], cwd=site_packages)
        # Killed, or out of memory or disk: slower here, and not worth keeping.
        if compiled.returncode >= 0 and not compiled.stderr:
            for dist in missing:
                _keep(dist, site_packages)
        phase.done(f"compiled {len(sources)} modules of {len(missing)} packages")


def _read(info: Path, store: Path) -> _Dist:
    """The distribution of a ``.dist-info`` folder; RECORD holds the hash of each of its files."""
    rows = []
    try:
        with (info / "RECORD").open(newline="", encoding="utf-8") as file:
            for name, digest, *_ in csv.reader(file):
                if (
                    name.endswith(".py")
                    and digest
                    and not name.startswith("..")
                    and not _SKIPPED.search(name)
                ):
                    rows.append((name, digest))
    except (OSError, ValueError):
        rows = []  # nothing is compiled: slower, not wrong
    rows.sort()
    key = hashlib.sha256("\n".join(",".join(row) for row in rows).encode()).hexdigest()
    return _Dist(store / key[:2] / key[2:34], tuple(name for name, _ in rows))


def _pyc_files(folder: Path, dist: _Dist) -> list[Path]:
    found: list[Path] = []
    for name in dist.sources:
        source = Path(name)
        found.extend((folder / source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"))
    return found


def _keep(dist: _Dist, site_packages: Path) -> None:
    """Store what was compiled, all of it or nothing: the folder appears under its name by one rename."""
    half = dist.store.with_name(f"{dist.store.name}.{os.getpid()}.part")
    half.mkdir(parents=True, exist_ok=True)
    for pyc in _pyc_files(site_packages, dist):
        target = half / pyc.relative_to(site_packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_one(pyc, target)
    try:
        half.rename(dist.store)
    except OSError:
        shutil.rmtree(half, ignore_errors=True)  # somebody else was first: same sources, same bytecode


def _link(stored: Path, site_packages: Path) -> None:
    for folder, _, names in os.walk(stored):
        target = site_packages / Path(folder).relative_to(stored)
        if names:
            target.mkdir(parents=True, exist_ok=True)
        for name in names:
            _link_one(Path(folder, name), target / name)


def _link_one(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # another file system, or one without hard links
