"""An environment from requirement lines, against `python -m venv` and `pip install` of the same lines.

    cold      nothing is cached: every byte is downloaded
    warm      packages (and, with us, their bytecode) are cached; the environment itself is not there
    present   the environment is there already and is asked for again

Both sides are whole processes with the same Python, and end with the same thing: everything that was asked
for can be imported, and every module that this imports has its .pyc. Ours holds the cluster's runtime
(ipykernel, ipyparallel) besides. Bar: warm at least 10 times faster than pip with a warm cache.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common

STACK = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "sympy")
QUICK = ("six", "tabulate")
BAR_TIMES = 10.0

# Run without writing bytecode, so that what it finds is what the installer left.
CHECK = r"""
import importlib, re, sys
from importlib.metadata import packages_distributions
from pathlib import Path

def plain(name): return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()

modules = {}
for module, owners in packages_distributions().items():
    for owner in owners:
        modules.setdefault(plain(owner), []).append(module)
for name in map(plain, sys.argv[1:]):
    provided = modules[name]
    own = [module for module in provided if plain(module) == name]
    for module in own or [module for module in provided if module.isidentifier() and module[0] != "_"]:
        importlib.import_module(module)
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
files = [spec for spec in specs if (spec.origin or "").endswith(".py")]
inside = [spec for spec in files if spec.origin.startswith(sys.prefix)]
without = [spec.name for spec in inside if not Path(spec.cached).exists()]
assert inside and not without, f"{len(without)} of {len(inside)} modules have no bytecode: {without[:5]}"
"""


class Peer:
    """venv and pip."""

    def __init__(self, work: Path, lines: tuple[str, ...]) -> None:
        self.lines = lines
        self.venv = work / "peer"
        self.env = common.environ() | {"PIP_CACHE_DIR": str(work / "pip-cache")}

    def install(self, *options: str, again: bool = False) -> float:
        seconds = 0.0
        if not again:
            common.remove(self.venv)
            seconds += common.timed([common.base_python(), "-m", "venv", self.venv], env=self.env)
        pip: common.Words = [self.venv / "bin" / "pip", "install", "--quiet", *options, *self.lines]
        seconds += common.timed(pip, env=self.env)
        check(self.venv, self.lines)
        return seconds


class Ours:
    """The library, as `up` calls it."""

    def __init__(self, work: Path, lines: tuple[str, ...]) -> None:
        self.lines = lines
        self.folder = work / "repository"
        self.cache = work / "our-cache"
        self.folder.mkdir()
        (self.folder / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))
        self.env = common.environ() | {
            "IPYTHON_BUILDER_CACHE_DIR": str(self.cache),
            "UV_CACHE_DIR": str(self.cache / "uv"),
        }
        self.argv: common.Words = [sys.executable, Path(__file__).with_name("ensure.py"), self.folder]

    def ensure(self, *, forget: str | None = None) -> float:
        """Seconds; `forget` names the part of the cache that is emptied first ("" means all of it)."""
        if forget is not None:
            common.remove(self.cache / forget)
        seconds = common.timed(self.argv, env=self.env)
        check(Path(common.run(self.argv, env=self.env).strip()), self.lines)
        return seconds


def check(environment: Path, lines: tuple[str, ...]) -> None:
    """Both sides have to deliver the same."""
    common.run([environment / "bin" / "python", "-B", "-c", CHECK, *lines], env=common.environ())


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--with", dest="lines", action="append", metavar="REQ",
        help=f"a requirement line, may be repeated\n(default: {' '.join(STACK)})",
    )  # fmt: skip
    options = parser.parse_args()
    lines = tuple(options.lines or (QUICK if options.quick else STACK))
    with common.workplace(options.work) as work:
        peer, ours = Peer(work, lines), Ours(work, lines)
        cold = common.take_turns(
            options.runs, lambda: peer.install("--no-cache-dir"), lambda: ours.ensure(forget="")
        )
        peer.install()  # fills pip's cache; ours is full from the last cold run
        warm = common.take_turns(options.runs, peer.install, lambda: ours.ensure(forget="environments"))
        present = common.take_turns(options.runs, lambda: peer.install(again=True), ours.ensure)
    bar = f"at least {BAR_TIMES:.0f} times faster"
    cases = [
        common.Case("cold", *cold),
        common.Case("warm", *warm, bar, lambda case: case.ratio >= BAR_TIMES),
        common.Case("present", *present),
    ]
    common.report(f"environment for {' '.join(lines)}", "venv + pip", cases, options)


if __name__ == "__main__":
    main()
