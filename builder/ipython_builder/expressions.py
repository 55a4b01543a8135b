r"""Random values from a template's expressions, as ``[a-z0-9]{5}`` or ``key-[\w]{32}``.

The grammar is that of OpenShift's generator (library-go, expressionvalue.go): ranges of letters and digits,
or ``\w`` (letters, digits, underscore), ``\d``, ``\a`` (letters and digits), ``\A`` (symbols) in brackets,
and a length of 1 to 255 in braces; everything else stays as it is. Two things are not the same:

- The original never emits the last character of a range (``[a-f0-9]`` has 14 symbols there). Here it does: an
  expression means what it says, and each character holds a little more that nobody can guess.
- The original draws everything from one 31-bit seed, so that a value that is shown, as a label in a host
  name, gives the secret beside it away. Here every character is drawn by itself from the operating system.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from ipython_builder.errors import UsageError

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = "0123456789"
_SYMBOLS = "~!@#$%^&*()-_+={}[]\\|<,>.?/\"';:`"
_ORDER = _LETTERS + _DIGITS + _SYMBOLS
_CLASSES = {
    r"\w": _LETTERS + _DIGITS + "_",
    r"\d": _DIGITS,
    r"\a": _LETTERS + _DIGITS,
    r"\A": _SYMBOLS,
}
_EXPRESSION = re.compile(r"(\[[a-zA-Z0-9\-\\]+\])\{([0-9]+)\}", re.ASCII)
_WELL_FORMED = re.compile(r"\[(\\w|\\d|\\a|\\A)|([a-zA-Z0-9]-[a-zA-Z0-9])+\]")
_RANGE = re.compile(r"\\?[a-zA-Z0-9]-?[a-zA-Z0-9]?")
_LONGEST = 255


def generate(expression: str, draw: Callable[[int], int] = secrets.randbelow) -> str:
    """A value that matches `expression`.

    Args:
        expression: see the module.
        draw: a number from 0 up to what it is given, exclusive.

    Raises:
        UsageError: brackets that are no ranges, a range that runs backwards, a length beyond 1 to 255.
    """

    def value(found: re.Match[str]) -> str:
        symbols, length = alphabet(found[1]), found[2]
        if len(length) > 9 or not 0 < int(length) <= _LONGEST:
            raise UsageError(
                f"{found[0]} asks for {length} characters", f"ask for at least 1 and at most {_LONGEST}"
            )
        return "".join(symbols[draw(len(symbols))] for _ in range(int(length)))

    return _EXPRESSION.sub(value, expression)


def alphabet(brackets: str) -> str:
    r"""The characters that ``[a-f0-9]`` or ``[\w]`` stands for, each once.

    Raises:
        UsageError: no ranges, or one that runs backwards.
    """
    if not _WELL_FORMED.search(brackets):
        raise UsageError(f"{brackets} is no range of characters", r"write it as in [a-z0-9] or [\w]")
    found = ""
    for one in _RANGE.findall(brackets):
        # As in the original only the ends count: `ab` is read as `a-b`.
        first, last = one[0], one[-1]
        if first + last in _CLASSES:
            found += _CLASSES[first + last]
            continue
        left, right = _ORDER.find(first), _ORDER.rfind(last)
        if left > right:
            raise UsageError(
                f"{brackets} has a range that runs backwards: {first}-{last}", "the order is a-z, A-Z, 0-9"
            )
        found += _ORDER[left : right + 1]
    return "".join(dict.fromkeys(found))
