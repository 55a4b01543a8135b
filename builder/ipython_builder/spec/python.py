"""Which Python the repository wants, and which of its files said so."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ipython_builder.errors import RepositoryError
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where

# Releases that a wish is tried against when two are compared.
_RELEASES = [f"3.{minor}.{micro}" for minor in range(6, 31) for micro in (0, 5, 20)]


def choose(asked: Asked, wishes: list[tuple[str, str]]) -> tuple[str, str | None]:
    """The first of (specifier, file) wins; a later one that contradicts it is named.

    Raises:
        RepositoryError: a wish is no specifier set.
    """
    chosen, source = "", None
    for text, file in wishes:
        try:
            specifier = SpecifierSet(text)
        except InvalidSpecifier as error:
            raise RepositoryError(
                f"{file}: {text!r} says no Python version", "write it as in >=3.11"
            ) from error
        if source is None:
            chosen, source = str(specifier), file
        elif not any((SpecifierSet(chosen) & specifier).contains(release) for release in _RELEASES):
            asked.notice(file, f"its Python {text} contradicts {chosen} of {source}, which is obeyed")
    return chosen, source


def runtime_txt(asked: Asked, tree: Tree, relative: str) -> str | None:
    """The specifier in a runtime.txt such as ``python-3.11``; None if it asks for no Python.

    Raises:
        RepositoryError: it is something else.
    """
    text = tree.read(relative)
    if text is None or not text.strip():
        return None
    first = text.strip().split("\n")[0].strip()
    match = re.fullmatch(r"python[- ](\d+(?:\.\d+){0,2})", first)
    if match:
        return _minor(asked, relative, match[1])
    if re.fullmatch(r"(r|julia)-.*", first):
        asked.notice(relative, f"{first!r} is not obeyed: only Python environments are built")
        return None
    raise RepositoryError(
        f"{Where(relative, 1)}: {first[:80]!r} names no Python", "write it as in python-3.11"
    )


def version_file(asked: Asked, tree: Tree, relative: str) -> str | None:
    """The specifier in a .python-version; its first line counts, as with pyenv and uv.

    Raises:
        RepositoryError: it begins as a version and is none.
    """
    text = tree.read(relative)
    for line in (text or "").split("\n"):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        match = re.fullmatch(r"(?:c?python-?)?(\d+(?:\.\d+){0,2})(?:(?:a|b|rc)\d+)?t?(?:-dev)?", word)
        if match:
            return _minor(asked, relative, match[1])
        try:
            if not word[0].isalnum():
                return str(SpecifierSet(word))
        except InvalidSpecifier:
            pass
        if re.match(r"\d+\.", word) and "/" not in word:
            raise RepositoryError(f"{relative}: {word[:80]!r} names no Python", "write it as in 3.11")
        # pyenv keeps names of somebody's virtual environments and other implementations here.
        asked.notice(relative, f"{word[:80]!r} is not obeyed: it names no version of CPython")
        return None
    return None


def wish(text: str, where: Where) -> str:
    """A wish as people write it, ``3.11`` or ``>=3.9``, as a specifier set.

    Raises:
        RepositoryError: it is neither.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return f"=={text.strip()}.*"
    try:
        return str(SpecifierSet(f"=={text}" if re.fullmatch(r"\d+\.\d+\.\d+", text.strip()) else text))
    except InvalidSpecifier as error:
        raise RepositoryError(
            f"{where}: {text!r} says no Python version", "write it as in 3.11 or >=3.9"
        ) from error


def relax(asked: Asked, relative: str, specifier: str) -> str:
    """``==3.11.5`` of a file that means "the one I had" as ``==3.11.*``, said in a notice."""
    match = re.fullmatch(r"==(\d+\.\d+\.\d+)(?:\.\*)?", specifier)
    return _minor(asked, relative, match[1]) if match else specifier


def _minor(asked: Asked, relative: str, version: str) -> str:
    parts = version.split(".")
    if len(parts) == 3:
        # A machine rarely has the very patch release; Binder takes any of the series too.
        asked.notice(relative, f"Python {version} is wanted; any {parts[0]}.{parts[1]} is taken")
    return f"=={'.'.join(parts[:2])}.*"
