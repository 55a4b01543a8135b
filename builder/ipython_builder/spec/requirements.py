"""requirements.txt and its like: pip's format, with ``-r`` and ``-c`` resolved."""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Iterator
from typing import TypeVar

from ipython_builder.commands import redact
from ipython_builder.errors import RepositoryError
from ipython_builder.spec import lines
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where

T = TypeVar("T")

# option -> (canonical name, takes a value)
_OPTIONS: dict[str, tuple[str, bool]] = {
    "-r": ("--requirement", True),
    "-c": ("--constraint", True),
    "-e": ("--editable", True),
    "-i": ("--index-url", True),
    "-f": ("--find-links", True),
    "--pypi-url": ("--index-url", True),
} | {
    name: (name, takes)
    for takes, names in (
        (True, "requirement constraint editable index-url extra-index-url find-links no-binary only-binary"),
        (True, "trusted-host use-feature"),
        (False, "no-index pre prefer-binary require-hashes always-unzip process-dependency-links"),
    )
    for name in (f"--{word}" for word in names.split())
}
# Said behind a requirement; --hash is read, the others name what a build backend is told.
_BEHIND = ("--hash", "--config-settings", "--config-setting", "-C", "--global-option", "--install-option")
_NOT_OBEYED = {
    "--trusted-host": "is not obeyed: who builds decides which host is trusted (UV_INSECURE_HOST)",
    "--prefer-binary": "is not obeyed: uv has no such preference; --only-binary is obeyed",
    "--use-feature": "is not obeyed: it speaks to pip",
    "--always-unzip": "is not obeyed: pip has forgotten it too",
    "--process-dependency-links": "is not obeyed: pip has forgotten it too",
}


def read(asked: Asked, tree: Tree, relative: str) -> None:
    """Collect what a requirements file asks for, and the files that it includes.

    Raises:
        RepositoryError: with file and line, for anything that cannot be meant or is refused.
    """
    text = tree.read(relative)
    if text is None:
        raise RepositoryError(f"{relative} is not there", "add the file")
    read_text(asked, tree, text, relative)


def read_text(asked: Asked, tree: Tree, text: str, relative: str) -> None:
    """The same for text that is at hand; `relative` says where relative includes start."""
    required = _Reader(asked, tree).text(text, relative, ())
    if required and asked.unhashed:
        raise RepositoryError(
            f"{required} wants hashes, but {asked.unhashed[0]} has none",
            "write the file again with pip-compile",
        )


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, line) with continuations joined and comments dropped, as pip does."""
    start, parts = 0, []
    for number, raw in enumerate(text.split("\n"), 1):
        start = start or number
        comment = raw.lstrip().startswith("#")
        if raw.endswith("\\") and not comment:
            parts.append(raw[:-1])
            continue
        # A comment line ends a continuation: what follows it is a line of its own.
        parts.append("" if comment else raw)
        line = re.sub(r"(^|\s+)#.*$", "", "".join(parts)).strip()
        if line:
            yield start, line
        start, parts = 0, []
    line = re.sub(r"(^|\s+)#.*$", "", "".join(parts)).strip()
    if line:
        yield start, line


class _Reader:
    def __init__(self, asked: Asked, tree: Tree) -> None:
        self.asked = asked
        self.tree = tree

    def text(
        self, text: str, relative: str, stack: tuple[str, ...], constrains: bool = False
    ) -> Where | None:
        """Returns where hashes are required, if somewhere."""
        required = None
        for number, line in logical_lines(text):
            where = Where(relative, number)
            if line.startswith("-"):
                required = self.option(line, where, (*stack, relative), constrains) or required
            elif constrains:
                self.constraint(line, where)
            else:
                self.requirement(line, where)
        return required

    def requirement(self, line: str, where: Where, editable: bool = False) -> None:
        body, hashes = self.behind(line, where)
        base = posixpath.dirname(where.file)
        lines.add(self.asked, self.tree, body, where, hashes=hashes, editable=editable, base=base)

    def constraint(self, line: str, where: Where) -> None:
        body, hashes = self.behind(line, where)
        parsed = lines.parse(self.tree, body, where, posixpath.dirname(where.file))
        if parsed.local and parsed.local not in self.asked.local_paths:
            self.asked.local_paths.append(parsed.local)
        full = " ".join((parsed.text, *(f"--hash={value}" for value in hashes)))
        if full not in self.asked.constraints:
            self.asked.constraints.append(full)

    def behind(self, line: str, where: Where) -> tuple[str, list[str]]:
        """A line as (requirement, hashes)."""
        words = line.split()
        first = next((i for i, word in enumerate(words) if i and re.match(r"--?[A-Za-z]", word)), len(words))
        body = " ".join(words[:first])
        hashes: list[str] = []
        rest = iter(words[first:])
        for word in rest:
            name, equals, value = word.partition("=")
            if name not in _BEHIND:
                raise RepositoryError(
                    f"{where}: {redact(word)!r} cannot stand behind a requirement", _nearest(name, _BEHIND)
                )
            if not equals:
                value = next(rest, "")
            if name == "--hash":
                hashes.append(value)
            else:
                self.asked.notice(where, f"{name} of {body!r} is not obeyed: it speaks to pip")
        return body, hashes

    def option(self, line: str, where: Where, stack: tuple[str, ...], constrains: bool) -> Where | None:
        lines.refuse_variables(line, where)
        name, value = self.split_option(line, where)
        base = posixpath.dirname(where.file)
        asked = self.asked
        if name in ("--requirement", "--constraint"):
            return self.include(name, value, where, stack, constrains)
        if name == "--editable" and constrains:
            raise RepositoryError(f"{where}: an editable line constrains nothing: {line!r}", "remove it")
        if name == "--editable":
            self.requirement(value, where, editable=True)
        elif name in ("--index-url", "--extra-index-url"):
            url = index_url(value, where)
            _add(asked.index_urls, url)
            if redact(url) != url:
                asked.notice(
                    where, f"a login stands in the index URL of line {where.line}, for every reader to see"
                )
        elif name == "--find-links":
            _add(asked.find_links, self.find_links(value, where, base))
        elif name in ("--no-binary", "--only-binary"):
            if not re.fullmatch(r":all:|:none:|[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*", value):
                raise RepositoryError(f"{where}: {name} wants names or :all:, not {value!r}", "mend the line")
            for one in value.split(","):
                _add(asked.options, f"{name} {one}")
        elif name == "--no-index":
            _add(asked.options, name)
        elif name == "--pre":
            asked.prereleases = True
        elif name == "--require-hashes":
            return where
        else:
            asked.notice(where, f"{name} {_NOT_OBEYED[name]}")
        return None

    def include(
        self, name: str, value: str, where: Where, stack: tuple[str, ...], constrains: bool
    ) -> Where | None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value):
            raise RepositoryError(
                f"{where}: requirements of another place are not fetched: {redact(value)!r}",
                "put the file into the repository",
            )
        path = self.tree.root / posixpath.dirname(where.file) / value
        relative = self.tree.name(self.tree.inside(path, where, value))
        if relative in stack:
            raise RepositoryError(
                f"{where}: files include one another: {' → '.join((*stack, relative))}", "break the circle"
            )
        text = self.tree.read(relative, where)
        if text is None:
            raise RepositoryError(
                f"{where}: {value!r} is not in the checkout", "mend the path, or add the file"
            )
        return self.text(text, relative, stack, constrains or name == "--constraint")

    def find_links(self, value: str, where: Where, base: str) -> str:
        if re.match(r"https?://", value):
            return index_url(value, where)
        if value.startswith("file:"):
            path = lines.check_url(self.tree, value, where, base)[1]
        else:
            path = lines.local_path(self.tree, value, where, base)
        assert path is not None
        _add(self.asked.local_paths, path)
        return path.as_uri()

    def split_option(self, line: str, where: Where) -> tuple[str, str]:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise RepositoryError(f"{where}: {redact(line)!r}: {error}", "mend the quotes") from error
        name, equals, value = words[0].partition("=")
        values = [value, *words[1:]] if equals else words[1:]
        if name not in _OPTIONS and not name.startswith("--") and name[:2] in _OPTIONS:
            name, values = name[:2], [words[0][2:].removeprefix("="), *words[1:]]  # as in -rfile
        if name in _BEHIND:
            raise RepositoryError(
                f"{where}: {redact(line)!r} stands behind no requirement",
                "end the line above with a backslash; a comment between the two parts them",
            )
        if name not in _OPTIONS:
            raise RepositoryError(
                f"{where}: {redact(line)!r}: unknown option {name}", _nearest(name, _OPTIONS)
            )
        canonical, takes = _OPTIONS[name]
        if canonical == "--editable":
            values = [" ".join(values)] if any(values) else []
        if len(values) != takes or (takes and not values[0]):
            wanted = "one value" if takes else "no value"
            raise RepositoryError(f"{where}: {redact(line)!r}: {name} takes {wanted}", "mend the line")
        return canonical, values[0] if takes else ""


def index_url(value: str, where: Where) -> str:
    """An index or a page of links, if it is a URL of the web.

    Raises:
        RepositoryError: it is not.
    """
    lines.refuse_variables(value, where)
    if not re.fullmatch(r"https?://[^\s/?#-][^\s]*", value):
        raise RepositoryError(
            f"{where}: {redact(value)!r} is not the URL of an index", "use https://host/path/"
        )
    return value


def _add(values: list[T], value: T) -> None:
    if value not in values:
        values.append(value)


def _nearest(word: str, known: dict[str, tuple[str, bool]] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {close[0]}?" if close else "see pip's documentation of requirements files"
