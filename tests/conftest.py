"""What the tests share: a home of their own, the real command line, and a look for what was left running.

Packages are downloaded once, into ``.cache/tests`` of the checkout (``IPYTHON_BUILDER_TEST_CACHE`` names
another folder); everything else of a test lies below its ``tmp_path``. Nothing here waits for a clock.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ipython_builder import processes, settings
from ipython_builder.interpreters import Interpreter, installed
from ipython_builder.settings import Settings

if TYPE_CHECKING:
    from tests.packages import Made

pytest_plugins = ["tests.engines", "tests.s2i_harness", "tests.kubernetes.fixtures"]

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("IPYTHON_BUILDER_TEST_CACHE") or CHECKOUT / ".cache" / "tests")
REPOS = Path(os.environ.get("IPYTHON_BUILDER_TEST_REPOS") or CHECKOUT.parent / "shared" / "repos")
# Of the environment that pytest was started in, what would make a test mean something else elsewhere.
DROPPED = ("IPYTHON", "IPP_", "JUPYTER", "XDG_", "PYTHON", "VIRTUAL_ENV", "UV_", "PIP_", "CONDA_", "GIT_")
KEPT = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "PIP_CERT", "GIT_SSL_CAINFO")

# The viewers of each process of the tests have an address of their own: nobody else's takes the port of a stopped one.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
LOOPBACK = f"127.0.0.{2 + _WORKER}" if sys.platform == "linux" else "127.0.0.1"


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start, also where the tests run in the background: there a shell ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Home:
    """A user's home in which nothing has happened yet.

    Attributes:
        path: the home folder.
        settings: as a command in it would read them.
        environ: the environment of a command in it.
    """

    path: Path
    settings: Settings
    environ: dict[str, str]

    @property
    def clusters(self) -> Path:
        return self.settings.state_dir / "clusters"


@dataclass(frozen=True)
class Said:
    """What a command said."""

    rc: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Cli:
    """The command line as a process of its own, in a `Home`."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.argv = [sys.executable, "-P", "-m", "ipython_builder"]

    def __call__(
        self,
        *words: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        check: bool = False,
    ) -> Said:
        """Run a command to its end; `env` is put over the home's environment, `check` wants exit code 0."""
        done = subprocess.run(
            [*self.argv, *words],
            env=self.home.environ | dict(env or {}),
            cwd=cwd or self.home.path,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        if check and said.rc:
            pytest.fail(f"{' '.join(map(str, words))} ended with {said.rc}:\n{said.stdout}\n{said.stderr}")
        return said

    def start(self, *words: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """The same, still running, with pipes; for signals and for what is followed."""
        env = self.home.environ | dict(options.pop("env", None) or {})
        return subprocess.Popen(
            [*self.argv, *words],
            env=env,
            cwd=options.pop("cwd", self.home.path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home below `tmp_path`, with this process's environment as its user's; ends what is left in it."""
    path = tmp_path / "home"
    path.mkdir()
    before = dict(os.environ)
    for name in before:
        if name.startswith(DROPPED) and name not in KEPT:
            monkeypatch.delenv(name)
    ours = {
        "HOME": path,
        "XDG_STATE_HOME": path / "state",
        "XDG_DATA_HOME": path / "data",
        "XDG_CONFIG_HOME": path / "config",
        "XDG_CACHE_HOME": path / "cache",
        "IPYTHON_BUILDER_CACHE_DIR": CACHE,
        # How this machine reaches an index, and where its interpreters are, is no part of a fresh home.
        "PYENV_ROOT": Path(before.get("PYENV_ROOT") or Path(before.get("HOME", "/")) / ".pyenv"),
        "UV_PYTHON_DOWNLOADS": "never",
        "IPYTHON_BUILDER_VIEWER_HOST": LOOPBACK,
    }
    config = Path(before.get("XDG_CONFIG_HOME") or Path(before.get("HOME", "/")) / ".config")
    for name, default in (
        ("UV_CONFIG_FILE", config / "uv/uv.toml"),
        ("PIP_CONFIG_FILE", config / "pip/pip.conf"),
    ):
        file = Path(before.get(name) or default)
        if file.is_file():
            ours[name] = file
    for name, value in ours.items():
        monkeypatch.setenv(name, str(value))
    made = Home(path, settings.load(), dict(os.environ))
    yield made
    for cluster in made.clusters.glob("[!.]*"):
        subprocess.run(
            [sys.executable, "-P", "-m", "ipython_builder", "down", "--discard", cluster.name],
            env=made.environ,
            cwd="/",
            capture_output=True,
            check=False,
        )
        processes.sweep(cluster)


@pytest.fixture
def cli(home: Home) -> Cli:
    """The real command line in the test's home."""
    return Cli(home)


@pytest.fixture
def own_cache(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home with environments that no other test sees; the downloaded packages are still shared."""
    monkeypatch.setenv("IPYTHON_BUILDER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(CACHE / "uv"))
    return Home(home.path, settings.load(), dict(os.environ))


@pytest.fixture
def make(own_cache: Home, tmp_path: Path) -> Made:
    """Makes environments of this test alone; packages and bytecode come from where all tests have them."""
    from tests.packages import Made

    (CACHE / "bytecode").mkdir(parents=True, exist_ok=True)
    own_cache.settings.cache_dir.mkdir()
    (own_cache.settings.cache_dir / "bytecode").symlink_to(CACHE / "bytecode")
    return Made(own_cache, tmp_path / "repository")


@pytest.fixture(scope="session")
def shared_repos() -> Path:
    """The folder with repositories that are too large, or not ours, to be in this one."""
    if not REPOS.is_dir():
        pytest.skip(
            f"{REPOS} is not there: IPYTHON_BUILDER_TEST_REPOS names the folder of shared repositories"
        )
    return REPOS


def missing(what: str) -> NoReturn:
    """Skip because `what` is missing; where CI=true promises that everything is there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and with CI=true nothing may be")
    pytest.skip(f"{what} is missing on this machine")


def require(tool: str) -> str:
    """The path of a program; skips (with CI=true: fails) where it is not on PATH."""
    found = shutil.which(tool)
    if found is None:
        missing(tool)
    return found


@functools.cache
def _interpreters() -> list[Interpreter]:
    return installed()


@pytest.fixture
def python_of() -> Callable[[str], Path]:
    """The executable of a Python by its version, such as ``3.9``; skips where there is none."""

    def find(version: str) -> Path:
        for one in _interpreters():
            if one.version.startswith(f"{version}."):
                return one.path
        missing(f"Python {version}")

    return find


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end no process of a cluster below the tests' folder lives; one that does is named and ended."""
    yield
    below = f"{processes.MARK}={tmp_path_factory.getbasetemp()}/".encode()
    left = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            marks = [v for v in (entry / "environ").read_bytes().split(b"\0") if v.startswith(below)]
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marks:
            left.append(f"{entry.name} {words} of {marks[0].decode()}")
            processes.sweep(Path(marks[0].partition(b"=")[2].decode()))
    assert not left, "processes outlived their tests:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def builder_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a builder image, as its Containerfile makes it; copied by those that change it."""
    root = tmp_path_factory.mktemp("builder") / "root"
    (root / "var/cache").mkdir(parents=True)
    (root / "var/cache/ipython-builder").symlink_to(CACHE)
    words = [sys.executable, "-P", "-m", "ipython_builder", "s2i", "assemble", "--base", "--root", root]
    env = {k: v for k, v in os.environ.items() if not k.startswith(DROPPED) or k in KEPT}
    subprocess.run([*words], env=env | {"UV_PYTHON_DOWNLOADS": "never"}, check=True, capture_output=True)
    shutil.rmtree(root / "var")
    return root
