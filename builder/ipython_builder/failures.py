"""What uv said when it failed, as an error of ours: whose fault it is, its own sentences, the next step [uv].

Pure: text in, error out. uv has no exit codes for this, so its words decide; the first that occurs does.
"""

from __future__ import annotations

import re
from pathlib import Path

from ipython_builder import runtime
from ipython_builder.commands import Result
from ipython_builder.errors import BuilderError, RepositoryError, Unavailable

_NETWORK = re.compile(
    r"error sending request|dns error|Connection refused|Could not connect|Failed to connect"
    r"|tcp connect error|invalid peer certificate|timed out|Network is unreachable"
    r"|Name or service not known|Failed to fetch: .*\n.*(?:50[0-9]|HTTP status server error)",
    re.IGNORECASE,
)
_DENIED = re.compile(r"401 Unauthorized|403 Forbidden|Missing credentials", re.IGNORECASE)
_SPACE = re.compile(r"No space left on device|Disk quota exceeded|os error 28\b", re.IGNORECASE)
_READ_ONLY = re.compile(r"Permission denied|Read-only file system|os error (?:13|30)\b", re.IGNORECASE)
_HASH = re.compile(r"hash mismatch|hashes? .*(?:do not|does not) match|--require-hashes", re.IGNORECASE)
_RESOLUTION = re.compile(r"No solution found|not found in the package registry")


def is_resolution(answer: Result) -> bool:
    """Whether uv looked at all versions and found that none will do."""
    # An index that did not answer, or not us, may have what was not found.
    unheard = _NETWORK.search(answer.stderr) or _DENIED.search(answer.stderr)
    return bool(_RESOLUTION.search(answer.stderr)) and not unheard


def conflict(answer: Result, said_by: str | None) -> RepositoryError:
    """The repository alone could be had, and our runtime alone, but not both."""
    theirs = said_by or "the requirements"
    return RepositoryError(
        f"{theirs} and what a cluster needs ({', '.join(runtime.REQUIREMENTS)}) exclude each other:\n"
        f"{_words(answer)}",
        f"change the version in {theirs} that is named above",
    )


def explain(answer: Result, said_by: str | None, cache: Path) -> BuilderError:
    """Any other failure.

    Args:
        said_by: the file that asked for what was being done, if one did.
        cache: the folder that everything is written to.
    """
    text = f"{answer.stderr}\n{answer.stdout}"
    words = _words(answer)
    where = f" (asked for by {said_by})" if said_by else ""
    if _SPACE.search(text):
        return BuilderError(
            f"the disk of {cache} is full:\n{words}", "free some space, or set IPYTHON_BUILDER_CACHE_DIR"
        )
    if is_resolution(answer):
        return RepositoryError(
            f"the requirements cannot be had together{where}:\n{words}",
            "change the requirement that is named above, in its file or in --with;"
            " `ipython-builder check --resolve` tries without installing",
        )
    if _DENIED.search(text):
        return Unavailable(
            f"the package index refuses us:\n{words}",
            "give the credentials in UV_DEFAULT_INDEX or ~/.netrc, never in the repository",
        )
    if _NETWORK.search(text):
        return Unavailable(
            f"the package index cannot be reached:\n{words}",
            "look at the network, --index-url, --ca-bundle and the proxy variables",
        )
    if _HASH.search(text):
        return RepositoryError(
            f"a package is not the one that was locked{where}:\n{words}",
            "do not install it blindly: make the lock again with `ipython-builder lock`, or ask who wrote it",
        )
    if _READ_ONLY.search(text) and str(cache) in text:
        return BuilderError(
            f"the cache {cache} cannot be written to:\n{words}",
            "set IPYTHON_BUILDER_CACHE_DIR to a folder that can be",
        )
    return RepositoryError(
        f"the requirements cannot be installed{where}:\n{words}", "mend what is named above"
    )


def _words(answer: Result, lines: int = 14) -> str:
    """uv's own sentences, without its marks and drawing; the end of them where they are many."""
    said = (re.sub(r"^[\s×╰─▶│]+", "", line) for line in (answer.stderr or answer.stdout).splitlines())
    return "\n".join(f"  {line}" for line in [line for line in said if line][-lines:])[-4000:]
