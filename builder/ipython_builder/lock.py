"""requirements.in -> a hashed requirements.txt beside it, for the repository's Python [pip-tools].

pip-tools resolves for the Python that it runs under. So it has a small environment of its own for each
Python, kept in the cache; the tool's own Python does not matter.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipython_builder import commands, failures, interpreters, scrub, spec
from ipython_builder.errors import BuilderError, RepositoryError, Unavailable
from ipython_builder.events import Reporter
from ipython_builder.interpreters import Interpreter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec
from ipython_builder.spec.files import Tree
from ipython_builder.spec.locks import find_uv
from ipython_builder.spec.requirements import logical_lines

# pip-tools reaches into pip: the two are kept within what was seen to work together.
_TOOLS = ("pip-tools>=7.5,<8", "pip>=25,<27", "setuptools", "wheel")
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==\s*([^\s;\\]+)|@\s*(\S+)).*")
_INDEX_OPTION = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index)\b.*")
_NETWORK = re.compile(
    r"Failed to establish a new connection|NewConnectionError|Temporary failure in name resolution"
    r"|Connection (refused|reset|aborted)|CERTIFICATE_VERIFY_FAILED|Name or service not|timed out|SSLError"
    r"|40[13] Error"
)
# What repeats pip's words in Python's, or says nothing to the reader of a message that is whole.
_NOISE = re.compile(
    r"WARNING: Retrying |Requirements conflict: |ResolutionImpossible: |\[Requirement|The above exception"
)


@dataclass(frozen=True)
class LockResult:
    """What a lock changed.

    Attributes:
        path: the requirements.txt that was written.
        python: the version that it is for.
        added, removed: version by name.
        changed: (version before, version now) by name.
        written: False where the file already said the same.
    """

    path: Path
    python: str
    added: Mapping[str, str]
    removed: Mapping[str, str]
    changed: Mapping[str, tuple[str, str]]
    written: bool


def lock(root: Path, settings: Settings, reporter: Reporter, *, upgrade: bool = False) -> LockResult:
    """Write requirements.txt from requirements.in; nothing is written unless all went well.

    Args:
        root: the folder that holds requirements.in, or its binder/.
        upgrade: choose the newest versions again; otherwise existing pins stay as long as they fit.

    Raises:
        RepositoryError: no requirements.in, a line that a hashed lock cannot hold, no versions that fit, no
            Python that fits.
        Unavailable: the index cannot be reached.
        BuilderError: the file or the cache cannot be written.
    """
    asked = spec.read(root, speaker="requirements.in")
    if asked.file is None:
        raise RepositoryError(
            f"there is no requirements.in in {asked.root}",
            "write one line for each package that the notebooks import into requirements.in, then lock again",
        )
    _refuse_unhashable(asked)
    python = interpreters.find(asked.python, settings, wanted_by=asked.python_from)
    source = asked.root / asked.file
    # A link is written through, not replaced; that it stays inside was seen when the folder was read.
    target = source.with_name("requirements.txt").resolve()
    if not target.is_relative_to(asked.root):
        raise RepositoryError(f"{target.name} leads out of the checkout", "replace the link by a file")
    before = _existing(asked.root, target, reporter)
    with reporter.phase("lock", f"locking {asked.file} for Python {python.version}") as phase:
        tools = _tools(python, settings, reporter)
        with commands.scratch() as folder:
            output = folder / "requirements.txt"
            if before and not upgrade:
                output.write_text(before, encoding="utf-8")  # pip-compile keeps the pins that it finds there
            _compile(tools, asked, output, settings, phase.progress)
            after = _with_indexes(asked, source, output.read_text(encoding="utf-8"))
        old, new = _pins(before), _pins(after)
        written = after != before
        if written:
            _replace(target, after)
        phase.done(f"locked {len(new)} packages of {asked.file} for Python {python.version}")
    return LockResult(
        path=target,
        python=python.version,
        added={name: new[name] for name in new if name not in old},
        removed={name: old[name] for name in old if name not in new},
        changed={name: (old[name], new[name]) for name in new if name in old and old[name] != new[name]},
        written=written,
    )


def _refuse_unhashable(asked: Spec) -> None:
    for line in asked.lines:
        if re.match(r"(\S+ @ )?(file:|git\+)", line):
            raise RepositoryError(
                f"{asked.file}: {commands.redact(line)!r} has no hash that a lock could hold",
                'move it to .ipython-builder.toml, as requirements = ["…"]: it is installed beside the lock',
            )


def _existing(root: Path, target: Path, reporter: Reporter) -> str:
    """What requirements.txt says now; nothing if it cannot be read as one."""
    if not target.exists():
        return ""
    relative = target.relative_to(root).as_posix()
    try:
        spec.read(root, speaker="requirements.txt")
        return Tree(root).read(relative) or ""
    except RepositoryError as error:
        reporter.warning(f"the versions in {relative} are not kept: {error.message}")
        return ""


def _compile(
    tools: Path, asked: Spec, output: Path, settings: Settings, on_line: Callable[[str], None]
) -> None:
    environ = scrub.installer_environ(settings) | {
        "CUSTOM_COMPILE_COMMAND": "ipython-builder lock",  # what the header tells people to run
        "PIP_CACHE_DIR": str(settings.cache_dir / "pip"),
        "PIP_RETRIES": "2",
    }
    # -I: `-m` would put the repository's folder on sys.path, and run a click.py that lies there.
    # --no-config: pip-tools would obey the repository's pyproject.toml.
    result = commands.run(
        [
            *(tools / "bin" / "python", "-I", "-m", "piptools", "compile", "--no-config", "--quiet"),
            *("--generate-hashes", "--strip-extras", "--allow-unsafe"),
            *("--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links"),
            *(["--pre"] if asked.prereleases else []),
            *("--cache-dir", settings.cache_dir / "piptools" / "cache"),
            *("--output-file", output, asked.file or ""),
        ],
        env=environ,
        cwd=asked.root,
        on_line=on_line,
        secrets=scrub.index_secrets(settings),
    )
    if result.returncode == 0:
        return
    said = _own_words(result.stderr)
    if "No space left on device" in result.stderr:
        raise BuilderError(f"the disk is full:\n{said}", "free some space, or set IPYTHON_BUILDER_CACHE_DIR")
    # Of a package that the index has, or two that exclude each other, a broken line is not the reason.
    if _NETWORK.search(result.stderr) and not re.search(r"Cannot install|from versions: \d", result.stderr):
        raise Unavailable(
            f"the package index cannot be reached:\n{said}", "check --index-url, proxy and --ca-bundle"
        )
    raise RepositoryError(
        f"no versions fit {asked.file}; pip says:\n{said}", f"change the lines of {asked.file} it names"
    )


def _own_words(stderr: str) -> str:
    """pip's message without its tracebacks, at most twenty lines."""
    kept: list[str] = []
    skipping = False
    for line in stderr.splitlines():
        if line.startswith("Traceback (most recent call last)"):
            skipping = True
        elif skipping and re.match(r"\S", line):
            skipping = False
            kept.append(re.sub(r"^[\w.]+\.(\w+): ", "", line))
        elif not skipping and line.strip():
            kept.append(line.strip())
    return "\n".join([line for line in dict.fromkeys(kept) if not _NOISE.match(line)][-20:])


def _with_indexes(asked: Spec, source: Path, text: str) -> str:
    """The lock with the index lines of requirements.in in front, and none of the caller's.

    pip-compile writes either all indexes or none, and the caller's may have a password in it.
    """
    relative = source.relative_to(asked.root).as_posix()
    own = [
        line
        for _, line in logical_lines(Tree(asked.root).read(relative) or "")
        if _INDEX_OPTION.fullmatch(line)
    ]
    head = re.match(r"(?:#.*\n)*", text)
    at = head.end() if head else 0
    return text[:at] + "".join(f"{line}\n" for line in own) + text[at:]


def _pins(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, line in logical_lines(text):
        if match := _PIN.fullmatch(line):
            found[match[1].lower()] = match[2] or match[3]
    return found


def _replace(target: Path, text: str) -> None:
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), mode)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise BuilderError(
            f"{target} cannot be written: {error.strerror}", "mend the folder's permissions"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _tools(python: Interpreter, settings: Settings, reporter: Reporter) -> Path:
    """The environment with pip-tools for this Python, made if it is not there; never a half-made one."""
    digest = hashlib.sha256("\0".join((str(python.path), *_TOOLS)).encode()).hexdigest()[:12]
    folder = settings.cache_dir / "piptools"
    path = folder / f"{python.version}-{digest}"
    if (path / "bin" / "python").exists():
        return path
    with reporter.phase("pip-tools", f"installing pip-tools for Python {python.version}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            half = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder))
        except OSError as error:
            raise BuilderError(
                f"{folder} cannot be written: {error.strerror}", "set IPYTHON_BUILDER_CACHE_DIR"
            ) from error
        try:
            _uv(settings, "venv", "--no-project", "--no-config", "--python", python.path, half / "env")
            _uv(settings, "pip", "install", "--python", half / "env" / "bin" / "python", *_TOOLS)
            try:
                os.rename(half / "env", path)
            except OSError:
                if not (path / "bin" / "python").exists():
                    shutil.rmtree(path, ignore_errors=True)  # its interpreter is gone, or it was not ours
                    os.rename(half / "env", path)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return path


def _uv(settings: Settings, *words: str | Path) -> None:
    result = commands.run(
        [find_uv(), *words],
        env=scrub.installer_environ(settings),
        cwd=Path("/"),  # uv obeys configuration of the folder it is called in
        secrets=scrub.index_secrets(settings),
    )
    if result.returncode == 0:
        return
    error = failures.explain(result, None, settings.cache_dir)
    if isinstance(error, RepositoryError):  # nothing of the repository was asked for
        error = BuilderError(
            f"pip-tools cannot be installed: {error.message}", "see that the index has pip-tools"
        )
    raise error
