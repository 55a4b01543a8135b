"""Many files as a few large ones: a compressed tar within a tar, in parts.

S2I writes each file of a tar to the host's disk, reads it again, and has it written into the next container.
The engine keeps a log of all that a container says, this tar too, which costs it three times the work of
reading it. So there are few files, and they are compressed in haste.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

PREFIX = "bale-"
PART_BYTES = 64 << 20
_BLOCK = 1 << 20


def pack(archive: tarfile.TarFile, root: Path, names: Iterable[Path]) -> None:
    """Add the files and links `names` below `root` to `archive`, as parts of one inner tar.

    Raises:
        OSError: one cannot be read.
    """
    parts = _Writer(archive)
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=parts, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as inner,
    ):
        for name in names:
            path = root / name
            found = path.lstat()
            info = tarfile.TarInfo(str(name))
            # Whole seconds, and no names of users: each would be a header more, or a look into a file.
            info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
            if stat.S_ISLNK(found.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
                inner.addfile(info)
            elif stat.S_ISREG(found.st_mode):
                info.size = found.st_size
                with path.open("rb") as file:
                    inner.addfile(info, file)
    parts.finish()


def parts(folder: Path) -> list[Path]:
    """The parts in a folder, in their order."""
    return sorted(folder.glob(f"{PREFIX}*"))


def unpack(folder: Path, target: Path) -> bool:
    """Write what is packed in `folder` below `target`; whether it was whole.

    Nothing is written elsewhere, whatever the names in it. A part is removed when it has been read.
    """
    links: list[tuple[Path, str]] = []
    made: set[Path] = set()
    try:
        with (
            gzip.GzipFile(fileobj=_Reader(parts(folder))) as packed,
            tarfile.open(fileobj=packed, mode="r|", bufsize=_BLOCK) as inner,
        ):
            for info in inner:
                name = os.path.normpath(info.name)
                if os.path.isabs(name) or name.split("/")[0] == "..":
                    continue
                path = target / name
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made.add(path.parent)
                if info.issym():
                    links.append((path, info.linkname))
                elif info.isreg() and (content := inner.extractfile(info)):
                    mode = 0o775 if info.mode & stat.S_IXUSR else 0o664
                    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                        shutil.copyfileobj(content, file, _BLOCK)
                    os.utime(path, (info.mtime, info.mtime))
        for path, to in links:  # last, so that nothing is written through one
            path.symlink_to(to)
        for path in parts(folder):  # the last one, of which the end is not looked at
            path.unlink()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, FileExistsError):
        return False
    return True


class _Writer(io.RawIOBase):
    """What is written becomes members of an archive, each of at most so many bytes."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._buffer = bytearray()
        self._count = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            self._flush(PART_BYTES)
        return len(data)

    def finish(self) -> None:
        self._flush(len(self._buffer))

    def _flush(self, count: int) -> None:
        if count:
            info = tarfile.TarInfo(f"{PREFIX}{self._count:05}")
            info.size, info.mode = count, 0o664
            self._archive.addfile(info, io.BytesIO(memoryview(self._buffer)[:count]))
            del self._buffer[:count]
            self._count += 1


class _Reader(io.RawIOBase):
    """The content of files, one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._file: io.BufferedReader | None = None

    def read(self, count: int = -1) -> bytes:
        while self._file or self._paths:
            if self._file is None:
                self._file = self._paths[0].open("rb")
            if data := self._file.read(count):
                return data
            self._file.close()
            self._file = None
            self._paths.pop(0).unlink(missing_ok=True)
        return b""
