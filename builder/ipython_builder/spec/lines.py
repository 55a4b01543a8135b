"""One requirement line: validated, normalised, and made independent of the working directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from ipython_builder.commands import redact
from ipython_builder.errors import RepositoryError
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where

_HASH = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+|file:\S+")
_DIRECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*@\s*\S.*")
_SCP = re.compile(r"(git\+)?[\w.-]+@[\w.-]+:[^/].*")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_GIT_OVER = ("https", "http", "ssh", "git", "file")
_CREDENTIALS_HINT = (
    "an index with credentials is configured by whoever builds, not by the repository: set "
    "IPYTHON_BUILDER_EXTRA_INDEX_URLS or IPYTHON_BUILDER_INDEX_URL, or put the login into ~/.netrc"
)
# Versions of ipyparallel a specifier is tried against: all there are, and what may come.
_IPYPARALLEL = [f"{a}.{b}.{c}" for a in (8, 9, 10, 11) for b in range(12) for c in range(4)] + ["99.0"]


@dataclass(frozen=True)
class Line:
    """A requirement: the text that goes to the installer, and what we need to know of it."""

    text: str
    name: str | None
    local: Path | None = None


def add(
    asked: Asked,
    tree: Tree,
    text: str,
    where: Where,
    *,
    hashes: Sequence[str] = (),
    editable: bool = False,
    base: str = "",
) -> None:
    """Read one requirement and collect it.

    Args:
        text: without comment, hashes and options.
        hashes: such as ``sha256:…``.
        editable: it stood behind ``-e``.
        base: the folder of the file it stands in, relative to the root.

    Raises:
        RepositoryError: it is not one, leads out of the checkout, or cannot work here.
    """
    for value in hashes:
        if not _HASH.fullmatch(value):
            hint = (
                "sha256, sha384 and sha512 are known, in hexadecimal; write the file again with pip-compile"
            )
            raise RepositoryError(f"{where}: {value!r} is not a hash", hint)
    line = parse(tree, text, where, base)
    if line.text == "pkg-resources==0.0.0":
        asked.notice(where, "pkg-resources==0.0.0 is left out: Debian's pip lists it, and no index has it")
        return
    if editable:
        asked.notice(
            where,
            f"the editable line {redact(text)!r} is installed as an ordinary package, since the environment "
            "is shared and read-only: edits show after the next build",
        )
    if "git+file:" in line.text:
        asked.notice(where, f"{redact(text)!r} is a path of this machine: it is found on no other one")
    full = " ".join((line.text, *(f"--hash={value}" for value in hashes)))
    if not hashes:
        asked.unhashed.append(str(where))
    if full not in asked.lines:
        asked.lines.append(full)
    if line.name and line.name not in asked.names:
        asked.names.append(line.name)
    if line.local and line.local not in asked.local_paths:
        asked.local_paths.append(line.local)


def parse(tree: Tree, text: str, where: Where, base: str = "") -> Line:
    """One requirement line as a `Line`; see `add`."""
    text = text.replace("${PROJECT_ROOT}", str(tree.root)).strip()
    refuse_variables(text, where)
    if not text or not text.isprintable():
        raise _invalid(where, text, "empty" if not text else "control characters in it")
    if _SCP.fullmatch(text) and "://" not in text:
        raise _invalid(where, text, "not a URL", "write git+ssh://git@host/owner/name.git")
    if _URL.match(text):
        return _url_line(tree, text, where, base)
    if not _DIRECT.fullmatch(text) and _looks_like_path(text):
        body, extras, marker = _split(text, where)
        return _local_line(tree, body, extras, marker, where, base)
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it cannot be parsed"
        raise _invalid(where, text, reason, _requirement_hint(text)) from error
    requirement.name = canonicalize_name(requirement.name)
    if requirement.url is None:
        check_ipyparallel(requirement, where)
        return Line(str(requirement), _name_if_wanted(requirement))
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    if not _URL.match(requirement.url):
        return _local_line(tree, requirement.url, extras, requirement.marker, where, base, requirement.name)
    url, local, _ = check_url(tree, requirement.url, where, base)
    if local:
        return _local_line(tree, str(local), extras, requirement.marker, where, base, requirement.name)
    # Not str(requirement): its spaces differ between versions of packaging, and the text goes into a key.
    return Line(
        f"{requirement.name}{extras} @ {url}{_marked(requirement.marker)}", _name_if_wanted(requirement)
    )


def refuse_variables(text: str, where: Where) -> None:
    """Raise if `text` has ``${VAR}``: installers expand it, to a host that the repository names."""
    if "${" in text:
        raise RepositoryError(
            f"{where}: variables are not expanded, because that would send your secrets to where the "
            f"repository says: {redact(text)!r}",
            _CREDENTIALS_HINT,
        )


def check_url(tree: Tree, url: str, where: Where, base: str = "") -> tuple[str, Path | None, dict[str, str]]:
    """A URL without its egg, the path if it is a local one, and the fragment's fields.

    Raises:
        RepositoryError: no scheme that uv installs from, or one that could be read as an option or a command.
    """
    scheme, _, _ = url.partition(":")
    scheme = scheme.lower()
    bare, _, fragment = url.partition("#")
    fields = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
    if scheme == "file":
        path = unquote(bare[5:])
        if path.startswith("//"):
            host, _, path = path[2:].partition("/")
            if host not in ("", "localhost"):
                raise _invalid(where, url, "a file URL of another machine")
            path = "/" + path
        return url, local_path(tree, path, where, base), fields
    vcs, plus, over = scheme.rpartition("+")
    if plus and (vcs != "git" or over not in _GIT_OVER):
        raise _invalid(
            where,
            url,
            f"{scheme} is not a way to get packages here",
            "of these, only git+… is installed from",
        )
    if not plus and scheme not in ("https", "http"):
        raise _invalid(where, url, f"{scheme} is not a way to get packages", "use https, or git+https")
    try:
        parts = urlsplit(bare)
        host = parts.hostname or ""
    except ValueError as error:
        raise _invalid(where, url, str(error)) from error
    if over != "file" and (not host or host.startswith("-")):
        raise _invalid(where, url, "it names no host")
    ref = parts.path.rpartition("@")[2] if plus and "@" in parts.path else ""
    if ref.startswith("-"):
        raise _invalid(where, url, "its reference could be read as an option")
    kept = "&".join(f"{key}={value}" for key, value in fields.items() if key != "egg")
    return bare + (f"#{kept}" if kept else ""), None, fields


def local_path(tree: Tree, text: str, where: Where, base: str = "") -> Path:
    """A path in a requirement as pip finds it: from the root; failing that, from beside the file."""
    candidates = (tree.root / text, tree.root / base / text)
    for candidate in candidates:
        try:
            found = tree.inside(candidate, where, text)
        except RepositoryError as error:
            if "/feedstock_root/" in text or "/croot/" in text or "/home/conda/" in text:
                error.hint = (
                    "this is what `pip freeze` writes in a conda environment; "
                    "`pip list --format=freeze > requirements.txt` writes versions"
                )
            raise
        if found.exists():
            return found
    raise RepositoryError(f"{where}: {text!r} is not in the checkout", "mend the path, or add what it names")


def check_ipyparallel(requirement: Requirement, where: Where) -> None:
    """Raise if it rules out every ipyparallel that the cluster works with (8 and newer)."""
    if requirement.name != "ipyparallel" or not _applies(requirement.marker):
        return
    specifiers: SpecifierSet = requirement.specifier
    named = [s.version.removesuffix(".*") for s in specifiers if s.operator not in ("!=", "===")]
    tried = _IPYPARALLEL + [
        v for v in named if v.partition(".")[0].isdigit() and int(v.partition(".")[0]) >= 8
    ]
    if not any(specifiers.contains(version, prereleases=True) for version in tried):
        raise RepositoryError(
            f"{where}: {str(requirement)!r} rules out every ipyparallel a cluster works with (8 or newer)",
            "write ipyparallel>=8, or remove the line: it is added where nothing asks for it",
        )


def _url_line(tree: Tree, text: str, where: Where, base: str) -> Line:
    body, extras, marker = _split(text, where)
    url, local, fields = check_url(tree, body, where, base)
    if local:
        return _local_line(tree, str(local), extras, marker, where, base)
    egg = unquote(fields.get("egg", ""))
    if egg:
        try:
            named = Requirement(egg)
        except InvalidRequirement as error:
            raise _invalid(where, text, f"{egg!r} is no name") from error
        name = canonicalize_name(named.name)
        extras = extras or (f"[{','.join(sorted(named.extras))}]" if named.extras else "")
        return Line(f"{name}{extras} @ {url}{_marked(marker)}", name)
    return Line(f"{url}{extras}{_marked(marker)}", _name_of_file(urlsplit(url).path))


def _local_line(
    tree: Tree,
    text: str,
    extras: str,
    marker: Marker | None,
    where: Where,
    base: str,
    name: str | None = None,
) -> Line:
    path = local_path(tree, text, where, base)
    if path.is_dir():
        if not any((path / one).is_file() for one in ("pyproject.toml", "setup.py", "setup.cfg")):
            raise RepositoryError(
                f"{where}: the folder {text!r} is no package: it has neither pyproject.toml nor setup.py",
                "add a pyproject.toml to it; modules beside the notebooks need no line",
            )
        table = tree.toml(tree.name(path / "pyproject.toml")) or {}
        project = table.get("project")
        declared = project.get("name") if isinstance(project, dict) else None
        if isinstance(declared, str) and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", declared):
            name = name or canonicalize_name(declared)
    elif path.name.endswith(_ARCHIVES):
        name = name or _name_of_file(path.name)
    else:
        raise _invalid(
            where, text, "neither a folder nor a wheel or sdist", "for a list of requirements, write -r"
        )
    target = f"{name}{extras} @ {path.as_uri()}" if name else f"{path.as_uri()}{extras}"
    return Line(target + _marked(marker), name, path)


def _split(text: str, where: Where) -> tuple[str, str, Marker | None]:
    """A path or URL line as (path, extras with their brackets, marker)."""
    body, _, tail = text.partition(" ;")
    if not tail and not _URL.match(text):
        body, _, tail = text.partition(";")
    try:
        marker = Marker(tail) if tail.strip() else None
    except InvalidMarker as error:
        raise _invalid(where, text, f"{tail.strip()!r} is no marker") from error
    match = re.fullmatch(r"(.*?)(\[[A-Za-z0-9._, -]*\])?", body.strip())
    if match is None or (" " in match[1] and _URL.match(text)):
        raise _invalid(where, text, "it cannot be parsed")
    return match[1], re.sub(r"\s+", "", match[2] or ""), marker


def _looks_like_path(text: str) -> bool:
    head = re.split(r"[;\[]", text, maxsplit=1)[0].strip()
    return head.startswith((".", "/", "~")) or "/" in head or head.endswith(_ARCHIVES)


def _name_of_file(path: str) -> str | None:
    name = PurePosixPath(unquote(path)).name
    try:
        return parse_wheel_filename(name)[0] if name.endswith(".whl") else parse_sdist_filename(name)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _name_if_wanted(requirement: Requirement) -> str | None:
    # A marker about the Python may hold for the repository's where it does not for ours.
    wanted = _applies(requirement.marker) or "python" in str(requirement.marker)
    return requirement.name if wanted else None


def _applies(marker: Marker | None) -> bool:
    return marker is None or marker.evaluate({"extra": ""})


def _marked(marker: Marker | None) -> str:
    return f" ; {marker}" if marker else ""


def _requirement_hint(text: str) -> str:
    if re.fullmatch(r"[\w.\[\]-]+\s*=\s*[\w.*]+", text):
        return "an exact version is written with ==, as in numpy==1.26.4"
    if re.fullmatch(r"[\w.-]+(\s+[\w.-]+)+", text):
        return "write one requirement a line"
    return "write it as in numpy>=1.26 or name @ https://…"


def _invalid(where: Where, text: str, reason: str, hint: str | None = None) -> RepositoryError:
    shown = redact(text if len(text) <= 200 else text[:200] + "…")
    return RepositoryError(f"{where}: {shown!r} is no requirement: {reason}", hint or _requirement_hint(text))
