"""A Spec as uv is told it: which of its lines are locked, which are open, with which options."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ipython_builder.spec import Spec

# Files that one program wrote whole: what they lock needs nothing beside it.
COMPLETE = ("uv.lock", "Pipfile.lock")
_LOCKS = (*COMPLETE, "pylock.toml", "requirements-hashed")


def locked(spec: Spec) -> list[str]:
    """The lines that a lock file made: their hashes are required, and nothing unhashed comes with them."""
    return sorted(line for line in spec.lines if " --hash=" in line) if spec.kind in _LOCKS else []


def still_open(spec: Spec) -> list[str]:
    """The lines whose versions are still to be chosen. Their order decides nothing: it is always the same."""
    return sorted(set(spec.lines) - set(locked(spec)))


def bounds(spec: Spec) -> Iterator[str]:
    """What a lock says, as constraints for the rest: our runtime takes the versions that are there."""
    for line in locked(spec):
        try:
            wish = Requirement(line.partition(" --hash=")[0])
        except InvalidRequirement:
            continue  # a bare URL: it has no name that anything could be held to
        marker = f" ; {wish.marker}" if wish.marker else ""
        yield f"{wish.name} @ {wish.url}{marker}" if wish.url else f"{wish.name}{wish.specifier}{marker}"
    if spec.pylock:
        import tomllib

        for package in tomllib.loads(spec.pylock.read_text(encoding="utf-8")).get("packages", []):
            if package.get("version"):
                marker = f" ; {package['marker']}" if package.get("marker") else ""
                yield f"{package['name']}=={package['version']}{marker}"


def with_hashes(pins: str, spec: Spec) -> Iterator[str]:
    """The pins, with the hashes that the repository gave for some of them: what is given is checked."""
    given: dict[str, list[str]] = {}
    for line in still_open(spec):
        body, *hashes = line.split(" --hash=")
        name = re.match(r"[A-Za-z0-9._-]+", body)
        if hashes and name:
            given.setdefault(canonicalize_name(name[0]), []).extend(hashes)
    for pin in pins.splitlines():
        found = given.get(canonicalize_name(pin.partition("==")[0]), []) if "==" in pin else []
        yield " ".join([pin, *(f"--hash={value.strip()}" for value in found)])


def built_anew(pins: str) -> list[str]:
    """Flags for what is built from a local folder: uv would take what it built of an earlier state."""
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])? @ file:", pins, re.MULTILINE)
    return [word for name in names for word in ("--refresh-package", name)]


def options(spec: Spec) -> list[str]:
    """The lines of a requirements file that say where packages come from, as the repository wrote them."""
    return [*spec.options, *(f"--find-links {link}" for link in spec.find_links)]


def flags(spec: Spec) -> list[str]:
    words = [word for url in spec.index_urls for word in ("--extra-index-url", url)]
    if spec.index_urls:
        # Files written for pip mean the best version of all indexes, not the first index that has the name.
        words += ["--index-strategy", "unsafe-best-match"]
    return [*words, "--prerelease=allow"] if spec.prereleases else words
