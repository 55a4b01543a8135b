"""The code of a notebook, and the modules that it imports and makes.

It is parsed, never run. Old notebooks are Python 2 and hold magics: what a parser refuses is read line by
line, because the imports of a cell are worth more than its grammar.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ipython_builder.import_names import DISTRIBUTIONS, NAMESPACES, is_module

# Cell magics whose body is Python. Of any other the body is another language.
_PYTHON_CELLS = frozenset("px time timeit capture prun memit python python2 python3 debug heat".split())  # noqa: SIM905
# Line magics with a statement behind them.
_STATEMENTS = frozenset("px time timeit prun memit debug lprun mprun".split())  # noqa: SIM905
_WRITING = ("file", "writefile")
# A magic whose use is an import.
_IMPLIED = {
    "matplotlib": ("matplotlib",),
    "pylab": ("matplotlib", "numpy"),
    "cython": ("Cython",),
    "R": ("rpy2",),
}
_EXTENSIONS_OF_IPYTHON = frozenset(
    {"autoreload", "storemagic", "sympyprinting", "parallelmagic", "ipyparallel"}
)
_IMPORT = re.compile(r"\s*import\s+([\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+(?:\s+as\s+\w+)?)*)\s*(?:[;#].*)?")
_FROM = re.compile(r"\s*from\s+([A-Za-z_][\w.]*)\s+import\b.*")
_TOLERANT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

_LARGEST = 20_000_000
# Nested deeper, code is not read on: no person writes that, and our own stack has an end.
_DEEPEST = 200


class Wanted(NamedTuple):
    """A module that code imports, by its whole dotted name.

    Attributes:
        surely: False for what may be no module (``b`` of ``from a import b``), or may not be there (the
            author has an answer for that).
    """

    module: str
    surely: bool


def code_cells(path: Path) -> Iterator[str]:
    """The code of a notebook of any format since 2; nothing for one that is broken or not in Python."""
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    metadata = content.get("metadata")
    language = (
        metadata.get("language_info") or metadata.get("kernelspec") if isinstance(metadata, dict) else None
    )
    if isinstance(language, dict):
        named = str(language.get("name") or "python").lower()
        spoken = str(language.get("language") or named).lower()
        if spoken in ("r", "ir", "julia", "scala", "bash", "javascript", "sql") or spoken.startswith("julia"):
            return
    sheets = content.get("worksheets")
    holders = sheets if isinstance(sheets, list) else [content]
    for holder in holders:
        cells = holder.get("cells") if isinstance(holder, dict) else None
        for cell in cells if isinstance(cells, list) else []:
            if isinstance(cell, dict) and cell.get("cell_type") == "code":
                yield _joined(cell.get("source", cell.get("input", "")))


def _joined(source: Any) -> str:
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def of_cell(source: str) -> tuple[set[str], set[str]]:
    """(modules that a cell imports, modules that it makes)."""
    magic, _, codes = _split(source)
    return set(_IMPLIED.get(magic, ())).union(*map(of_code, codes)), made_by(source)


def made_by(source: str) -> set[str]:
    """The modules that a cell writes or compiles."""
    made = {match[1] for match in re.finditer(r"f2py\w*\b.*\s-m\s+(\w+)", source)}
    magic, argument, _ = _split(source)
    target = re.search(r"(\S+)\.pyx?\s*$", argument) if magic in _WRITING else None
    return made | {Path(target[1]).name} if target else made


def _split(source: str) -> tuple[str, str, list[str]]:
    """A cell's magic, the magic's argument, and the pieces of Python code in the cell."""
    first = source.lstrip().split("\n", 1)[0]
    match = re.fullmatch(r"%%(\w+)\b(.*)", first.strip())
    if match is None:
        return "", "", [source]
    magic, argument = match[1], match[2].strip()
    body = source.lstrip()[len(first) :]
    if magic in _WRITING:
        # What a notebook writes, it runs or imports.
        return magic, argument, [body] if re.search(r"\S\.py$", argument) else []
    if magic not in _PYTHON_CELLS:
        return magic, argument, []
    return magic, argument, [argument, body] if magic in ("time", "timeit", "prun") else [body]


def wanted_of_cell(source: str) -> list[Wanted]:
    """What a cell imports, in order; nothing of code that is not Python 3 or is not Python."""
    return [wanted for code in _split(source)[2] for wanted in wanted_of_code(code)]


def wanted_of_code(source: str, deep: int = 0) -> list[Wanted]:
    """What a piece of code imports, in order, wherever in it: here and, as a text, on the engines."""
    if "import" not in source and "require" not in source:
        return []
    tree = _parse(source) or _parse(_without_magics(source)[0])
    found: list[Wanted] = []
    if tree is not None:
        _collect(tree, found, True, deep)
    return found


def _collect(node: ast.AST, found: list[Wanted], surely: bool, deep: int) -> None:
    """Add what `node` and all below it import, as it stands in the text."""
    if deep > _DEEPEST:
        return
    if isinstance(node, ast.Import):
        found += (Wanted(alias.name, surely) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        found.append(Wanted(node.module, surely))
        found += (Wanted(f"{node.module}.{alias.name}", False) for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call):
        texts = [
            one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "execute" and texts:  # view.execute("import numpy")
            found += (Wanted(module, False) for module, _ in wanted_of_code(texts[0], deep + 1))
        elif name == "require":  # @ipyparallel.require("numpy")
            found += (Wanted(text, False) for text in texts if is_module(text))
    tolerant = isinstance(node, ast.Try) and any(_tolerates(handler) for handler in node.handlers)
    for child in ast.iter_child_nodes(node):
        _collect(child, found, surely and not tolerant, deep + 1)


def of_code(source: str) -> set[str]:
    """The modules a piece of code imports."""
    if "import" not in source and "%" not in source:
        return set()
    tree = _parse(source)
    implied: set[str] = set()
    if tree is None:
        source, implied = _without_magics(source)
        tree = _parse(source)
    if tree is not None:
        return implied | set(_walk(tree))
    return implied | {_top(module) for line in source.split("\n") for module in _of_line(line)}


def _parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the author's escapes are not our reader's business
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _without_magics(source: str) -> tuple[str, set[str]]:
    """Code with each magic, shell and help line replaced by `pass`, and what the magics import."""
    kept: list[str] = []
    implied: set[str] = set()
    for line in source.split("\n"):
        indent, text = line[: len(line) - len(line.lstrip())], line.strip()
        match = re.match(r"(?:[\w.,\s]+=\s*)?%(\w+)\s*(.*)", text)
        if match and match[1] in _STATEMENTS:
            # Options of the magic come first; a statement begins with none.
            kept.append(indent + (re.sub(r"^(?:-\S+\s+(?:\d+\s+)?)*", "", match[2]) or "pass"))
        elif match:
            implied.update(_IMPLIED.get(match[1], ()))
            if match[1] in ("load_ext", "reload_ext"):
                implied.update(
                    _top(word) for word in match[2].split()[:1] if word not in _EXTENSIONS_OF_IPYTHON
                )
            kept.append(indent + "pass")
        elif text.startswith(("!", "?", "%")) or text.endswith("?") or re.match(r"[\w.,\s]+=\s*!", text):
            kept.append(indent + "pass")
        else:
            kept.append(line)
    return "\n".join(kept), implied


def _walk(tree: ast.AST) -> Iterator[str]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (_top(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from {_top(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Try) and any(_tolerates(handler) for handler in node.handlers):
            # The author has an answer for its absence.
            waiting += [*node.orelse, *node.finalbody, *(child for child in node.body if not _imports(child))]
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _imports(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _tolerates(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or (isinstance(one, ast.Name) and one.id in _TOLERANT) for one in caught)


def _of_line(line: str) -> list[str]:
    if match := _IMPORT.fullmatch(line):
        return [part.split()[0] for part in match[1].split(",")]
    if match := _FROM.fullmatch(line):
        return [match[1]]
    return []


def _top(module: str) -> str:
    parts = module.split(".")
    both = ".".join(parts[:2])
    return (
        both
        if parts[0] in NAMESPACES and (both in DISTRIBUTIONS or parts[0] not in DISTRIBUTIONS)
        else parts[0]
    )


def text_of(path: Path) -> str:
    """A file as text, whatever it holds; empty for one that cannot be read or is too large to be code."""
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        return path.read_bytes().decode("utf-8-sig", "replace")
    except OSError:
        return ""
