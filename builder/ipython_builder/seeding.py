"""The image's notebooks in a workspace: copied the first time, and renewed while nobody has changed them.

Engines import from the image and notebooks from the workspace. So a file that is as an earlier image had it
becomes the one of this image; what somebody has changed, added or removed in the workspace stays so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

HALF = ".ipython-builder-seed"  # a copy that is under way
NOTE = ".ipython-builder-image.json"  # what was copied from which image


def seed(folder: Path, source: Path) -> None:
    """Have the notebooks of `source` in `folder`; what a copy that was cut off has left is put right.

    Raises:
        OSError: it cannot be written.
    """
    half, note = folder / HALF, folder / NOTE
    others = {path.name for path in folder.iterdir()} - {"lost+found", half.name, note.name}
    image = _image(source)
    if not others:
        shutil.rmtree(half, ignore_errors=True)
        files = {name: _digest(source / name) for name in _files(source)}
        if not files:
            return  # an empty workspace is one
        _write(note, image, files)
        shutil.copytree(source, half, symlinks=True)
    elif not half.is_dir():
        _renew(folder, source, note, image)
        return
    # The copy is whole: names appear one by one, and none that is there is written over.
    for path in half.iterdir():
        if not os.path.lexists(folder / path.name):
            path.rename(folder / path.name)
    shutil.rmtree(half)


def _renew(folder: Path, source: Path, note: Path, image: str) -> None:
    """Bring what is as it was copied to where this image is."""
    try:
        noted = json.loads(note.read_text())
        before: dict[str, str] = noted["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nobody knows what is as it was
    if noted.get("image") == image:
        return
    now = {name: _digest(source / name) for name in _files(source)}
    for name in before.keys() | now.keys():
        if before.get(name) == now.get(name) or _digest(folder / name) != before.get(name):
            continue
        if name not in now:
            (folder / name).unlink()
            continue
        try:
            _copy(source / name, folder / name)
        except (FileExistsError, NotADirectoryError):
            continue  # somebody has a file where this image has a folder
    _write(note, image, now)


def _files(folder: Path) -> Iterator[str]:
    """The files and links below a folder, by their paths in it."""
    for path, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(path) / name).is_symlink()]
        for name in [*names, *links]:
            yield str((Path(path) / name).relative_to(folder))


def _digest(path: Path) -> str | None:
    """Of a file's content, or of where a link leads; None where there is nothing."""
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return "unreadable"


def _copy(source: Path, target: Path) -> None:
    """In one step, so that nobody sees half a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.ipython-builder")
    beside.unlink(missing_ok=True)
    shutil.copy2(source, beside, follow_symlinks=False)
    beside.replace(target)


def _image(source: Path) -> str:
    """Another word for another image: to read all files and find nothing new would delay the page."""
    there = source.stat()
    return f"{there.st_ino} {there.st_ctime_ns}"


def _write(note: Path, image: str, files: dict[str, str | None]) -> None:
    beside = note.with_name(f"{note.name}.new")
    beside.write_text(json.dumps({"image": image, "files": files}))
    beside.replace(note)
