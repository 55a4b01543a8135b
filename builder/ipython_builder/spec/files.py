"""The door to the repository's files: no byte from outside the checkout, no surprise from inside it."""

from __future__ import annotations

import codecs
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from ipython_builder.errors import RepositoryError
from ipython_builder.spec.model import Where

MAX_BYTES = 10_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # What PowerShell's `pip freeze > requirements.txt` writes.
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Tree:
    """A checkout, read without leaving it.

    Attributes:
        root: resolved, so that a symlink is judged by where it ends.
        top: of the checkout, where `root` is a folder in it: as far up as paths may lead.
    """

    def __init__(self, root: Path, top: Path | None = None) -> None:
        try:
            self.root = root.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise RepositoryError(f"{root} is not there", "name a folder or a git URL") from error
        if not self.root.is_dir():
            raise RepositoryError(f"{root} is not a folder", "name the folder that holds the notebooks")
        self.top = top.resolve() if top is not None else self.root
        self._tables: dict[str, dict[str, Any]] = {}

    def name(self, path: Path) -> str:
        """A resolved path as `read` takes it and errors show it: with ``..`` where it is above."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def exists(self, relative: str) -> bool:
        """Is there anything of that name, a dangling symlink included?"""
        return os.path.lexists(self.root / relative)

    def inside(self, path: Path, where: Where, text: str) -> Path:
        """`path` resolved.

        Raises:
            RepositoryError: it leads out of the checkout.
        """
        try:
            resolved = path.resolve()
            resolved.exists()
        except (OSError, RuntimeError, ValueError) as error:  # a symlink loop, a NUL, a name that is too long
            raise RepositoryError(f"{where}: {text!r} is no usable path: {error}", "mend the path") from error
        if not resolved.is_relative_to(self.top):
            raise RepositoryError(
                f"{where}: {text!r} leads out of the checkout",
                "put what it points at into the repository, or name the folder above as the source",
            )
        return resolved

    def read(self, relative: str, where: Where | None = None) -> str | None:
        """The text of a file without BOM and with \\n line ends; None if there is nothing of that name.

        Args:
            where: who asks for it, for errors (None: nobody, the name is a known one).

        Raises:
            RepositoryError: it is a folder, leads out of the checkout, is too large or no text.
        """
        if not self.exists(relative):
            return None
        path = self.inside(self.root / relative, where or Where(relative), relative)
        try:
            if path.is_dir():
                raise RepositoryError(
                    f"{relative} is a folder, not a file", "rename it, or put a file in its place"
                )
            if not path.is_file():
                raise RepositoryError(f"{relative} is not a plain file", "replace it by a text file")
            if path.stat().st_size > MAX_BYTES:
                raise RepositoryError(
                    f"{relative} is larger than {MAX_BYTES // 1_000_000} MB",
                    "it cannot be what it is named after",
                )
            return decode(path.read_bytes(), relative)
        except OSError as error:
            raise RepositoryError(
                f"{relative} cannot be read: {error.strerror}", "mend its permissions"
            ) from error

    def toml(self, relative: str) -> dict[str, Any] | None:
        """A TOML file's tables, to be left as they are; None if it is not there."""
        if relative in self._tables:
            return self._tables[relative]
        text = self.read(relative)
        if text is None:
            return None
        try:
            return self._tables.setdefault(relative, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            where, shown = _toml_place(relative, text, str(error))
            raise RepositoryError(f"{where}: not TOML: {error}{shown}", f"mend {relative}") from error
        except RecursionError as error:
            raise RepositoryError(f"{relative}: nested too deeply", f"mend {relative}") from error

    def json(self, relative: str) -> Any:
        """A JSON file's content; None if it is not there."""
        text = self.read(relative)
        if text is None:
            return None
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            line = text.splitlines()[error.lineno - 1 : error.lineno]
            shown = f": {line[0].strip()[:80]!r}" if line else ""
            where = Where(relative, error.lineno)
            raise RepositoryError(f"{where}: not JSON: {error.msg}{shown}", f"mend {relative}") from error
        except (RecursionError, ValueError) as error:
            raise RepositoryError(f"{relative}: not JSON that can be read", f"mend {relative}") from error


def decode(raw: bytes, relative: str) -> str:
    """Bytes of a text file as text.

    Raises:
        RepositoryError: neither UTF-8 nor UTF-16 with a mark, or control characters in it.
    """
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            raw, used = raw[len(bom) :], encoding
            break
    else:
        used = "utf-8"
    try:
        text = raw.decode(used)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RepositoryError(
            f"{Where(relative, line)}: byte {raw[error.start]:#04x} is not {used.upper()}",
            "save the file as UTF-8",
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise RepositoryError(f"{Where(relative, line)}: not a text file", "save the file as UTF-8 text")
    return text


def _toml_place(relative: str, text: str, message: str) -> tuple[Where, str]:
    _, found, tail = message.rpartition("(at line ")
    number = tail.partition(",")[0]
    if not found or not number.isdigit():
        return Where(relative), ""
    lines = text.split("\n")
    offending = lines[int(number) - 1].strip()[:80] if int(number) <= len(lines) else ""
    return Where(relative, int(number)), f": {offending!r}" if offending else ""
