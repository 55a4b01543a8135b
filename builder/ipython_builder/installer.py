"""The steps by which packages get into an environment, each of them one call of uv [uv]."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ipython_builder import asking, commands, failures, mirror, runtime, scrub
from ipython_builder.events import Phase, Reporter
from ipython_builder.interpreters import Interpreter
from ipython_builder.mirror import Mirror
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec


class Installer:
    """uv for one Python, in a scrubbed environment, outside the repository, whose files it must not obey.

    Args:
        preferred: exact versions, a line each, that are taken where nothing speaks against them; before ours.
        environ: variables for uv over the scrubbed ones.
    """

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        python: Interpreter,
        *,
        preferred: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.python = python
        self.preferred = preferred or runtime.preferred_versions()
        self.environ = dict(environ or {})
        self._back: Callable[[str], str] = str

    @cached_property
    def uv(self) -> str:
        import uv

        return uv.find_uv_bin()

    def resolve(self, spec: Spec) -> str:
        """Exact versions of what `spec` asks for and our runtime, a line each; of a lock, what it left open.

        Raises:
            RepositoryError, Unavailable, BuilderError: as `failures` says.
        """
        with self._mirrored(spec) as copied, self.reporter.phase("resolve", "choosing versions") as phase:
            with commands.scratch() as folder:
                pins = copied.back(self._resolve(copied.spec, folder, phase))
            phase.done(f"chose versions of {_count(pins)} packages")
        return pins

    def install(self, spec: Spec, pins: str, path: Path) -> None:
        """An environment at `path`: what the repository locks, then exactly `pins`, then our wheel."""
        self.make(path)
        self.add(spec, pins, path)

    def make(self, path: Path) -> None:
        """An empty environment at `path`; files that are there already stay."""
        answer = self._run("venv", "--no-project", "--allow-existing", "--python", self.python.path, path)
        if answer.returncode != 0:
            raise failures.explain(answer, None, self.settings.cache_dir)

    def add(self, spec: Spec, pins: str, path: Path, *, again: Sequence[str] = ()) -> None:
        """The same in the environment that is at `path`; what is there in the right version is not touched.

        Args:
            again: names that are installed anew, although their version is there.
        """
        locked = asking.locked(spec)
        what = f"what {spec.file} locks" if spec.pylock or locked else f"{_count(pins)} packages"
        with (
            self._mirrored(spec) as copied,
            self.reporter.phase("install", f"installing {what}") as phase,
            commands.scratch() as folder,
        ):
            spec, pins = copied.spec, copied.there(pins)
            anew = [word for name in again for word in ("--reinstall-package", name)]
            if spec.pylock:
                self._install(path, [*anew, "-r", str(spec.pylock)], phase, spec.file)
            if locked:
                alone = ["--no-deps"] if spec.kind in asking.COMPLETE else []
                lines = _file(folder, "locked.txt", [*asking.options(spec), *locked])
                words = ["--require-hashes", *alone, *asking.flags(spec), *anew, *lines]
                self._install(path, words, phase, spec.file)
            lines = _file(folder, "pins.txt", [*asking.options(spec), *asking.with_hashes(pins, spec)])
            words = ["--no-deps", *asking.flags(spec), *asking.built_anew(pins), *anew, *lines]
            self._install(path, words, phase, spec.file)
            copied.sign(path)
            self._install_wheel(path, phase)
            phase.done(f"installed {what}")

    def satisfied(self, spec: Spec, path: Path) -> bool:
        """Whether all that `spec` asks for is in the environment at `path`; no index is asked for that."""
        if spec.pylock or spec.local_paths:
            return False  # a lock of this kind, and code that is at hand, are compared by what they say
        with commands.scratch() as folder:
            lines = [*asking.still_open(spec), *asking.bounds(spec), *runtime.REQUIREMENTS]
            asked = _file(folder, "requirements.in", [re.sub(r"\s+--hash=\S+", "", line) for line in lines])
            limits = _file(folder, "constraints.txt", sorted(spec.constraints))
            answer = self._run(
                "pip", "install", "--dry-run", "--offline", "--no-build", "--python", path / "bin" / "python",
                *(["--prerelease=allow"] if spec.prereleases else []), "--constraint", limits[1], *asked,
            )  # fmt: skip
        return answer.returncode == 0 and "Would make no changes" in answer.stderr

    def hashes(self, spec: Spec, lines: Sequence[str]) -> str:
        """`lines`, which are exact versions, each with the hashes that the index has for it.

        Empty where the index has no such version, or does not answer.
        """
        with commands.scratch() as folder:
            asked = _file(folder, "exact.in", [*asking.options(spec), *lines])
            answer = self._run(
                "pip", "compile", "--python", self.python.path, "--no-deps", "--generate-hashes",
                "--no-header", "--no-annotate", "--quiet", *asking.flags(spec), asked[1],
            )  # fmt: skip
        return answer.stdout if answer.returncode == 0 else ""

    def uninstall(self, names: Sequence[str], path: Path) -> None:
        """Remove these distributions from the environment at `path`."""
        answer = self._run("pip", "uninstall", "--python", path / "bin" / "python", *names)
        if answer.returncode != 0:
            raise failures.explain(answer, None, self.settings.cache_dir)

    def contradictions(self, path: Path) -> list[str]:
        """What in the environment at `path` does not go together, in uv's words, a line each."""
        answer = self._run("pip", "check", "--python", path / "bin" / "python")
        return [line for line in answer.stderr.splitlines() if line.startswith("The package ")]

    def install_viewer(self, path: Path) -> None:
        """The viewer's environment at `path`, from our lock."""
        what = "the viewer (JupyterLab)"
        with self.reporter.phase("install", f"installing {what}") as phase, commands.scratch() as folder:
            self.make(path)
            lock = _file(folder, "viewer.txt", runtime.viewer_lock().splitlines())
            self._install(path, ["--require-hashes", "--no-deps", "--no-build", *lock], phase, None)
            self._install_wheel(path, phase)
            phase.done(f"installed {what}")

    # -- one call of uv each ------------------------------------------------------------------

    def _resolve(self, spec: Spec, folder: Path, phase: Phase) -> str:
        answer = self._compile(spec, folder, phase, runtime.REQUIREMENTS)
        if answer.returncode != 0:
            # Does the repository disagree with itself, or with us? It is asked again without our lines.
            alone = self._compile(spec, folder, phase, ()) if failures.is_resolution(answer) else answer
            if alone.returncode == 0:
                raise failures.conflict(answer, spec.file)
            raise failures.explain(alone, spec.file, self.settings.cache_dir)
        pins = (folder / "pins.txt").read_text()
        unsaid = runtime.unsaid("\n".join([pins, *asking.bounds(spec)]))
        if unsaid:
            answer = self._compile(spec, folder, phase, (*runtime.REQUIREMENTS, *unsaid))
            if answer.returncode == 0:
                pins = (folder / "pins.txt").read_text()
            else:
                self.reporter.warning(
                    f"versions that are known not to work together: {', '.join(unsaid)} fails"
                )
        return pins

    def _install(self, path: Path, words: Sequence[str], phase: Phase, said_by: str | None) -> None:
        # Bytecode is our own affair (bytecode.py): compiled once, linked into every environment.
        python = path / "bin" / "python"
        answer = self._run("pip", "install", "--no-compile-bytecode", "--python", python, *words, phase=phase)
        if answer.returncode != 0:
            raise failures.explain(answer, said_by, self.settings.cache_dir)

    def _install_wheel(self, path: Path, phase: Phase) -> None:
        # By its name from a folder, not by its path: nothing in the environment then names our cache.
        wheel = runtime.wheel(self.settings.cache_dir / "runtime")
        name, version, *_ = wheel.name.split("-")
        self._install(
            path,
            ["--no-deps", "--no-index", "--find-links", str(wheel.parent),
             *([] if runtime.is_installed(path) else ["--reinstall-package", name]), f"{name}=={version}"],
            phase, None,
        )  # fmt: skip

    def _compile(self, spec: Spec, folder: Path, phase: Phase, ours: Sequence[str]) -> commands.Result:
        asked = _file(folder, "requirements.in", [*asking.options(spec), *asking.still_open(spec), *ours])
        limits = _file(folder, "constraints.txt", [*sorted(spec.constraints), *asking.bounds(spec)])
        # What stands in the output file already is preferred: so our tested versions win where nothing speaks
        # against them, and the repository's pins win over ours.
        output = _file(folder, "pins.txt", self.preferred.splitlines())[1]
        # For uv a local folder is the date of its pyproject.toml, whatever has become of the code beside it.
        anew = ["--refresh"] if any(path.is_dir() for path in spec.local_paths) else []
        return self._run(
            "pip", "compile", *anew, "--python", self.python.path, "--no-header", "--no-annotate", "--quiet",
            "--output-file", output, "--constraint", limits[1], *asking.flags(spec), asked[1], phase=phase,
        )  # fmt: skip

    @contextmanager
    def _mirrored(self, spec: Spec) -> Iterator[Mirror]:
        """What the repository itself has is built in a copy; nobody is told the copy's name."""
        with mirror.of(spec) as copied:
            self._back = copied.back
            try:
                yield copied
            finally:
                self._back = str

    def _run(self, *words: str | Path, phase: Phase | None = None) -> commands.Result:
        back = self._back

        def show(line: str) -> None:
            if phase:
                phase.progress(back(line))

        said = commands.run(
            [self.uv, *words],
            env=scrub.installer_environ(self.settings) | self.environ,
            cwd=Path("/"),
            on_line=show,
            secrets=scrub.index_secrets(self.settings),
        )
        return replace(said, stdout=back(said.stdout), stderr=back(said.stderr))


def _file(folder: Path, name: str, lines: Sequence[str] | Iterator[str]) -> list[str]:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return ["-r", str(folder / name)]


def _count(pins: str) -> int:
    return sum(bool(re.match(r"[A-Za-z0-9]", line)) for line in pins.splitlines())
