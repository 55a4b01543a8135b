"""Files into their place in an image: renamed where they can be, so that no byte is written twice.

An image runs under any user of its group, so the group may do what the owner may. Modes are set in the step
that brings a file, which makes no second copy of it in a later layer.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def move(source: Path, target: Path) -> None:
    """Put a file or a symbolic link at `target`, over what is there; `source` is gone afterwards.

    Raises:
        OSError: it cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    found = source.lstat()
    if stat.S_ISLNK(found.st_mode):
        target.unlink(missing_ok=True)
        target.symlink_to(os.readlink(source))
        source.unlink(missing_ok=True)
        return
    mode = shared(found.st_mode)
    try:
        if found.st_gid != os.getegid():
            os.chown(source, -1, os.getegid())
        if stat.S_IMODE(found.st_mode) != mode:
            source.chmod(mode)
        source.replace(target)
    except OSError:  # somebody else's, or on another file system: written anew, then it is ours
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        source.unlink()


def move_tree(source: Path, target: Path, *, without: frozenset[str] = frozenset()) -> None:
    """Put all that is below `source` below `target`; what is there under another name stays.

    Args:
        without: names directly below `source` that are removed instead.

    Raises:
        OSError: something cannot be read or written.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.name in without:
            continue
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink():
            if place.is_symlink() or place.is_file():
                place.unlink()
            move_tree(entry, place)
        else:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            move(entry, place)
    remove(source)


def remove(folder: Path) -> None:
    """Delete a folder with all that is in it; one that its own parent does not let go stays, empty."""
    shutil.rmtree(folder, ignore_errors=True)


def share(path: Path) -> None:
    """Give the group the rights of a file's owner, if it has not got them."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if not path.is_symlink() and mode != shared(mode):
        path.chmod(shared(mode))


def shared(mode: int) -> int:
    """A file's mode with the owner's rights for the group too, and no others' right to write."""
    owner = stat.S_IMODE(mode) & stat.S_IRWXU | stat.S_IRUSR | stat.S_IWUSR
    return owner | owner >> 3 | (owner >> 6 & ~stat.S_IWOTH)
