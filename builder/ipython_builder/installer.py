"""The steps by which packages get into an environment, each one call of uv, and uv's failures in our words [uv]."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ipython_builder import commands, runtime, scrub
from ipython_builder.errors import BuilderError, RepositoryError, Unavailable
from ipython_builder.events import Phase, Reporter
from ipython_builder.interpreters import Interpreter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec

# uv's own words -> what they mean for us; the first that occurs decides.
_NETWORK = re.compile(
    r"error sending request|dns error|Connection refused|Could not connect|Failed to connect|tcp connect error"
    r"|invalid peer certificate|timed out|Network is unreachable|Name or service not known",
    re.IGNORECASE,
)
_DENIED = re.compile(r"401 Unauthorized|403 Forbidden|Missing credentials", re.IGNORECASE)
_SPACE = re.compile(r"No space left on device|Disk quota exceeded|os error 28\b", re.IGNORECASE)
_READ_ONLY = re.compile(r"Permission denied|Read-only file system", re.IGNORECASE)


class Installer:
    """uv for one Python, in a scrubbed environment and outside the repository's folder, whose files it must not obey."""

    def __init__(self, settings: Settings, reporter: Reporter, python: Interpreter) -> None:
        self.settings = settings
        self.reporter = reporter
        self.python = python

    @cached_property
    def uv(self) -> str:
        import uv

        return uv.find_uv_bin()

    def resolve(self, spec: Spec) -> str:
        """Exact versions for what `spec` asks for together with our runtime, one line each."""
        ours = [line for line in runtime.REQUIREMENTS]
        with self.reporter.phase("resolve", "choosing versions") as phase, self._folder() as folder:
            answer = self._compile(spec, folder, phase, ours)
            if answer.returncode != 0:
                self._explain_conflict(spec, folder, phase, answer)
            pins = (folder / "pins.txt").read_text()
            phase.done(f"chose versions of {len(_names(pins))} packages")
        return pins

    def install_pins(self, pins: str, spec: Spec, path: Path) -> None:
        """An environment at `path` with exactly `pins` and ``ipython_cluster``."""
        with self._installing(f"installing {len(_names(pins))} packages") as phase, self._folder() as folder:
            self._venv(path)
            self._install(
                path, self._file(folder, "pins.txt", pins), phase, "--no-deps", *self._indexes(spec)
            )
            self._install_wheel(path, phase)
            phase.done(f"installed {len(_names(pins))} packages")

    def install_locked(self, spec: Spec, path: Path) -> None:
        """An environment at `path` with what the repository's lock says, then our runtime around it."""
        with self._installing(f"installing what {spec.file} locks") as phase, self._folder() as folder:
            self._venv(path)
            if spec.pylock:
                self._install(path, ["-r", str(spec.pylock)], phase)
            elif spec.lines:
                lines = self._file(folder, "requirements.txt", "\n".join(spec.lines) + "\n")
                self._install(path, lines, phase, "--require-hashes", *self._indexes(spec), said_by=spec.file)
            frozen = self._run(
                "pip", "freeze", "--python", path / "bin" / "python", "--exclude-editable"
            ).stdout
            self._file(folder, "requirements.in", "\n".join(runtime.REQUIREMENTS) + "\n")
            self._file(folder, "constraints.txt", "".join(f"{line}\n" for line in _pinned(frozen)))
            answer = self._compile_files(folder, phase, "--constraint", folder / "constraints.txt")
            if answer.returncode != 0:
                raise self._conflict(spec, answer)
            pins = (folder / "pins.txt").read_text()
            self._install(path, self._file(folder, "runtime.txt", pins), phase, "--no-deps")
            self._install_wheel(path, phase)
            phase.done(f"installed what {spec.file} locks")

    def install_viewer(self, path: Path) -> None:
        """The viewer's environment at `path`, from our lock."""
        with self._installing("installing the viewer (JupyterLab)") as phase, self._folder() as folder:
            self._venv(path)
            lock = self._file(folder, "viewer.txt", runtime.viewer_lock())
            self._install(path, lock, phase, "--require-hashes", "--no-deps", "--no-build")
            self._install_wheel(path, phase)
            phase.done("installed the viewer (JupyterLab)")

    # -- one call of uv each ------------------------------------------------------------------------------------

    def _venv(self, path: Path) -> None:
        answer = self._run("venv", "--no-project", "--python", self.python.path, path)
        if answer.returncode != 0:
            raise self._failure(answer, None)

    def _install(
        self, path: Path, what: Sequence[str], phase: Phase, *options: str, said_by: str | None = None
    ) -> None:
        answer = self._run(
            "pip", "install", "--no-compile-bytecode", "--python", path / "bin" / "python", *options, *what,
            phase=phase,
        )  # fmt: skip
        if answer.returncode != 0:
            raise self._failure(answer, said_by)

    def _install_wheel(self, path: Path, phase: Phase) -> None:
        wheel = runtime.wheel(self.settings.cache_dir / "runtime")
        self._install(path, [str(wheel)], phase, "--no-deps", "--no-index")

    def _compile(self, spec: Spec, folder: Path, phase: Phase, ours: Sequence[str]) -> commands.Result:
        self._file(folder, "requirements.in", "\n".join([*spec.lines, *ours]) + "\n")
        options: list[str | Path] = [*self._indexes(spec)]
        if spec.constraints:
            self._file(folder, "constraints.txt", "\n".join(spec.constraints) + "\n")
            options += ["--constraint", folder / "constraints.txt"]
        return self._compile_files(folder, phase, *options)

    def _compile_files(self, folder: Path, phase: Phase, *options: str | Path) -> commands.Result:
        # What stands in the output file already is preferred: so our tested versions win where nothing speaks
        # against them, and the repository's pins win over ours.
        self._file(folder, "pins.txt", runtime.preferred_versions())
        return self._run(
            "pip", "compile", "--python", self.python.path, "--no-header", "--no-annotate", "--quiet",
            "--output-file", folder / "pins.txt", *options, folder / "requirements.in", phase=phase,
        )  # fmt: skip

    def _run(self, *words: str | Path, phase: Phase | None = None) -> commands.Result:
        return commands.run(
            [self.uv, *words],
            env=scrub.installer_environ(self.settings),
            cwd=Path("/"),
            on_line=phase.progress if phase else None,
            secrets=scrub.index_secrets(self.settings),
        )

    def _indexes(self, spec: Spec) -> list[str]:
        return [word for url in spec.index_urls for word in ("--extra-index-url", url)]

    @staticmethod
    def _file(folder: Path, name: str, text: str) -> list[str]:
        (folder / name).write_text(text)
        return ["-r", str(folder / name)]

    @staticmethod
    def _folder() -> _Folder:
        return _Folder()

    def _installing(self, message: str):  # type: ignore[no-untyped-def]  # a generator-based context manager
        return self.reporter.phase("install", message)

    # -- failures in our words ----------------------------------------------------------------------------------

    def _explain_conflict(self, spec: Spec, folder: Path, phase: Phase, answer: commands.Result) -> None:
        """Say whether the repository disagrees with itself or with us: it is asked again without our lines."""
        if not _is_resolution(answer):
            raise self._failure(answer, spec.file)
        alone = self._compile(spec, folder, phase, ())
        raise self._conflict(spec, answer) if alone.returncode == 0 else self._failure(alone, spec.file)

    def _conflict(self, spec: Spec, answer: commands.Result) -> BuilderError:
        return RepositoryError(
            f"{spec.file or 'the requirements'} and what a cluster needs ({', '.join(runtime.REQUIREMENTS)})"
            f" exclude each other:\n{_words(answer)}",
            f"change the version in {spec.file or 'the requirements'} that is named above",
        )

    def _failure(self, answer: commands.Result, said_by: str | None) -> BuilderError:
        text = f"{answer.stderr}\n{answer.stdout}"
        words = _words(answer)
        where = f" (asked for by {said_by})" if said_by else ""
        if _SPACE.search(text):
            return BuilderError(
                f"the disk of {self.settings.cache_dir} is full",
                "free some space, or set IPYTHON_BUILDER_CACHE_DIR",
            )
        if _is_resolution(answer) and not _NETWORK.search(text):
            return RepositoryError(
                f"the requirements cannot be had together{where}:\n{words}",
                "change the line that is named above; `ipython-builder check --resolve` tries again without installing",
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
        if re.search(
            r"hash mismatch|hashes? .*(?:do not|does not) match|--require-hashes", text, re.IGNORECASE
        ):
            return RepositoryError(
                f"a package is not the one that was locked{where}:\n{words}",
                "do not install it blindly: make the lock again with `ipython-builder lock`, or ask who wrote it",
            )
        if _READ_ONLY.search(text) and str(self.settings.cache_dir) in text:
            return BuilderError(
                f"the cache {self.settings.cache_dir} cannot be written to:\n{words}",
                "set IPYTHON_BUILDER_CACHE_DIR to a folder that can be",
            )
        return RepositoryError(
            f"the requirements cannot be installed{where}:\n{words}", "mend what is named above"
        )


class _Folder:
    """A temporary folder as a `Path`."""

    def __enter__(self) -> Path:
        self.folder = tempfile.TemporaryDirectory(prefix="ipython-builder-")
        return Path(self.folder.name)

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def _is_resolution(answer: commands.Result) -> bool:
    return bool(re.search(r"No solution found|not found in the package registry", answer.stderr))


def _words(answer: commands.Result, lines: int = 12) -> str:
    """uv's own sentences, without its marks and drawing."""
    said = [re.sub(r"^[\s×╰─▶│]+", "", line) for line in (answer.stderr or answer.stdout).splitlines()]
    return "\n".join(f"  {line}" for line in said if line)[-4000:] if len(said) <= lines else "\n".join(
        f"  {line}" for line in said[-lines:]
    )  # fmt: skip


def _names(pins: str) -> list[str]:
    return [line for line in pins.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def _pinned(frozen: str) -> list[str]:
    """The ``name==version`` lines of a freeze; paths and URLs cannot be constraints."""
    return [line for line in frozen.splitlines() if re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line)]
