"""Values for a template's parameters, and labels: from words and from files of ``NAME=value`` lines.

It reads what `oc process` reads (oc, pkg/helpers/newapp/app/env.go; kubectl, generate.ParseLabels), oddities
included: a file that works there gives the same values here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ipython_builder.errors import UsageError

_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def assignments(words: Iterable[str]) -> dict[str, str]:
    """``NAME=value`` words as a dictionary.

    Raises:
        UsageError: no ``=``, a name that is none, or a name twice.
    """
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not _is_name(name):
            raise UsageError(f"{word!r} sets no parameter", "write it as in NAME=value")
        pairs.append((name, value))
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise UsageError(f"given more than once: {', '.join(sorted(twice))}", "give each parameter one value")
    return dict(pairs)


def labels(text: str) -> dict[str, str]:
    """``key=value,other=value`` as a dictionary; of a key that is there twice the last value.

    Raises:
        UsageError: something between two commas is not of this form.
    """
    found = {}
    for part in text.split(",") if text else []:
        key, _, value = part.partition("=")
        if not key or part.count("=") != 1:
            raise UsageError(f"{part!r} is no label", "write labels as in key=value,other=value")
        found[key] = value
    return found


def from_file(text: str, where: str) -> dict[str, str]:
    """The values in a file: ``NAME=value`` or ``NAME: value`` a line, comments behind ``#``, quotes or not.

    Raises:
        UsageError: a line that is neither empty nor a comment nor a value.
    """
    values = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if (stripped := line.strip(" \n\t")) and not stripped.startswith("#"):
            line = _without_comment(line)
            separator = (
                min((line.find(one), one) for one in "=:" if one in line)[1]
                if re.search("[=:]", line)
                else None
            )
            name, _, value = line.partition(separator) if separator else ("", "", "")
            name = name.removeprefix("export").strip(" ")
            if not _is_name(name):
                raise UsageError(
                    f"{where}, line {number} sets no parameter",
                    "write a line as in NAME=value, or # before it",
                )
            values[name] = _unquoted(value.strip(" "))
    return values


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name != "." and not name.startswith("..")


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that is not in quotes, found as the original finds it: by counting quotes."""
    kept: list[str] = []
    quoted = False
    for part in line.split("#"):
        if part.count('"') == 1 or part.count("'") == 1:
            if quoted:
                quoted = False
                kept.append(part)
            else:
                quoted = True
        if not kept or quoted:
            kept.append(part)
    return "#".join(kept)


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), value[1:-1])
    return value
