"""Images of a repository, against those of an S2I builder that installs with pip in one layer.

    clean build          no layer of an earlier build is taken; packages are cached
    notebook changed     the same repository with another cell in one notebook, by `build`
    the same, by s2i     by the real program s2i, ours by `build --engine s2i`; left out where it is not there
    the same, s2i alone  ours by `s2i build --incremental`, which carries all packages about
    pushed               what is sent to a registry after that change
    image                its size; and where our side leaves to the viewer what the peer must install to serve
    first page           from `podman run` until /lab answers; and the same where the viewer serves

Both sides stand on the same base image, and their builder images are there before. Both have the same
requirements.txt, with what the peer needs to serve. Each has its package cache mounted: pip's, and ours.
podman builds and runs; s2i needs a Docker engine too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import registry
from start import free_port

from ipython_builder import settings
from ipython_builder.build import image

HERE = Path(__file__).resolve().parent
STACK = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "sympy")
QUICK = ("six",)
SERVED = ("jupyterlab", "ipyparallel")  # without these there is no notebook on the peer's side
BASES = ("docker.io/library/debian:13-slim", "localhost/debian:13-slim")
MARK = f"ipython-builder-benchmark-{uuid.uuid4().hex[:8]}"  # images of another run are not ours
LIMIT = 120.0  # seconds after which a container has failed
CLEAN, CHANGED, BY_S2I, PAGE = 0.33, 0.1, 0.2, 0.8
ALLOWANCE_KB = 200.0


class Side:
    """What both have in common: a repository, an image, and a count of changes."""

    def __init__(self, work: Path, name: str, lines: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.folder = work / name
        self.image = f"localhost/{MARK}/{name}"
        self.env = env
        self.changes = 0
        self._id = ""
        shutil.copytree(HERE.parent / "examples", self.folder, ignore=shutil.ignore_patterns(".ipynb_*"))
        (self.folder / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def change(self) -> None:
        """One more cell in one notebook."""
        path = min(self.folder.rglob("*.ipynb"))
        notebook = json.loads(path.read_text())
        self.changes += 1
        cell = {"cell_type": "markdown", "id": f"change-{self.changes}", "metadata": {}}
        notebook["cells"].append(cell | {"source": [f"Change {self.changes} of {self.image}"]})
        path.write_text(json.dumps(notebook, indent=1))

    def build(self, *, clean: bool = False) -> float:
        """Seconds; the image that had the name before is removed, which is not timed."""
        seconds = common.timed(self.words(clean=clean), env=self.env, cwd=self.folder.parent)
        before, self._id = self._id, podman(self.env, "image", "inspect", "--format", "{{.Id}}", self.image)
        if before and before != self._id:
            podman(self.env, "rmi", before)
        return seconds

    def rebuild(self) -> float:
        self.change()
        return self.build()

    def words(self, *, clean: bool) -> common.Words:
        raise NotImplementedError

    def megabytes(self) -> float:
        return int(podman(self.env, "image", "inspect", "--format", "{{.Size}}", self.image)) / 1e6

    def first_page(self) -> float:
        """Seconds from the command to the page."""
        port = free_port()
        seen: list[float] = []
        watcher = threading.Thread(target=lambda: seen.append(answering(f"http://127.0.0.1:{port}/lab")))
        watcher.start()
        began = time.monotonic()
        options = ["--rm", "--detach", "--publish", f"127.0.0.1:{port}:8080"]
        container = podman(self.env, "run", *options, self.image)
        try:
            watcher.join()
            if not seen[0]:
                sys.exit(f"no page within {LIMIT:.0f} s:\n{podman(self.env, 'logs', container)}")
        finally:
            podman(self.env, "rm", "--force", "--time", "2", container)
        return seen[0] - began


class Peer(Side):
    """A builder that does as sclorg's documents say."""

    def __init__(self, work: Path, base: str, lines: tuple[str, ...], env: Mapping[str, str]) -> None:
        super().__init__(work, "peer", lines, env)
        self.builder = f"localhost/{MARK}/peer-builder"
        self.secrets = secrets(work / "peer-secrets")
        words = [
            "podman",
            "build",
            "--format",
            "docker",
            "--build-arg",
            f"BASE={base}",
            "--tag",
            self.builder,
        ]
        common.run([*words, HERE / "peer"], env=env)

    def words(self, *, clean: bool) -> common.Words:
        words = [
            "podman",
            "build",
            "--format",
            "docker",
            "--layers",
            "--build-arg",
            f"BUILDER={self.builder}",
        ]
        words += ["--file", str(HERE / "peer" / "application.Containerfile"), "--tag", self.image]
        words += ["--no-cache"] if clean else []
        words += [f"--secret=id={path.stem},src={path}" for path in sorted(self.secrets.iterdir())]
        return [*words, self.folder]

    def push(self, to: str) -> None:
        podman(self.env, "tag", self.image, to)
        try:
            podman(self.env, "push", "--tls-verify=false", to)
        finally:
            podman(self.env, "untag", self.image, to)

    def s2i(self, program: str, image: str, cache: Path) -> float:
        words: common.Words = [
            *(program, "build", self.folder, self.builder, image, "--copy", "--pull-policy", "never"),
            *("--volume", f"{cache}:/var/cache/pip", "--inject", f"{self.secrets}:/run/secrets/peer"),
        ]
        return common.timed(words, env=self.env)


class Ours(Side):
    """`ipython-builder build`."""

    def __init__(
        self, work: Path, name: str, builder: str, lines: tuple[str, ...], env: Mapping[str, str]
    ) -> None:
        super().__init__(work, name, lines, env)
        self.builder = builder

    def words(self, *, clean: bool) -> common.Words:
        return self.tool(self.image, "--engine", "podman", *(["--no-cache"] if clean else []))

    def tool(self, image: str, *options: str) -> common.Words:
        words = [sys.executable, "-P", "-m", "ipython_builder", "build", self.folder, image]
        return [*words, "--builder", self.builder, "--progress", "none", *options]

    def push(self, to: str) -> None:
        common.run(self.tool(to, "--engine", "podman", "--push"), env=self.env)
        podman(self.env, "untag", to, to)  # with one word it would take all names away

    def s2i(self, program: str, image: str) -> float:
        path = f"{Path(program).parent}:{self.env['PATH']}"
        return common.timed(self.tool(image, "--engine", "s2i"), env={**self.env, "PATH": path})

    def s2i_alone(self, program: str, image: str, config: Path) -> float:
        words: common.Words = [
            *(program, "build", self.folder, self.builder, image, "--copy", "--incremental"),
            *("--pull-policy", "never", "--incremental-pull-policy", "never"),
            *("--inject", f"{config}:/run/secrets/ipython-builder"),
        ]
        return common.timed(words, env=self.env)


# -- the cases ----------------------------------------------------------------------------------------


def built(runs: int, peer: Peer, ours: Ours, *, quick: bool) -> list[common.Case]:
    """Builds; caches are full after the first."""
    if not quick:
        peer.build(clean=True)
        ours.build(clean=True)
    clean = common.take_turns(runs, partial(peer.build, clean=True), partial(ours.build, clean=True))
    changed = common.take_turns(runs, peer.rebuild, ours.rebuild)
    return [
        at_most("clean build", *clean, CLEAN),
        at_most("notebook changed", *changed, CHANGED),
    ]


def by_s2i(runs: int, work: Path, peer: Peer, ours: Ours, program: str) -> list[common.Case]:
    """The same change where s2i makes both images, in a Docker engine."""
    docker = docker_client()
    cache = work / "peer-s2i-cache"
    cache.mkdir()
    cache.chmod(0o777)  # the container's user is another one
    config = work / "own-secrets"
    image.write_secrets(config, settings.load())
    images = [f"{MARK}/{name}:latest" for name in ("peer", "ours", "alone")]
    theirs, mine, alone = images
    loaded = [name for name in (peer.builder, ours.builder) if load(name, docker, peer.env)]

    def again(side: Side, build: Callable[[], float]) -> float:
        side.change()
        return build()

    sides = {
        "the same, by s2i": lambda: ours.s2i(program, mine),
        "the same, s2i alone": lambda: ours.s2i_alone(program, alone, config),
    }
    try:
        peer.s2i(program, theirs, cache)
        for build in sides.values():
            build()
        return [
            at_most(
                name,
                *common.take_turns(
                    runs,
                    lambda: again(peer, lambda: peer.s2i(program, theirs, cache)),
                    partial(again, ours, build),
                ),
                BY_S2I,
            )
            for name, build in sides.items()
        ]
    finally:
        for name in [*images, *loaded]:
            quietly([docker, "rmi", "--force", name], peer.env)


def pushed(work: Path, peer: Peer, ours: Ours) -> common.Case:
    """What goes over the wire after a change; the images before it have been pushed."""
    found: list[float] = []
    with registry.running(work) as counter:
        for side in (peer, ours):
            name = f"{counter.address}/{MARK}/{type(side).__name__.lower()}:latest"
            side.push(name)
            side.rebuild()
            before = counter.sent
            side.push(name)
            found.append((counter.sent - before) / 1e3)
    most = ours.size / 1e3 + ALLOWANCE_KB
    bar = f"ours at most {most:.0f} kB, the repository and {ALLOWANCE_KB:.0f}"
    return common.Case("pushed", found[:1], found[1:], bar, lambda case: case.medians[1] <= most, unit="kB")


def started(runs: int, peer: Peer, ours: Ours, lean: Ours, *, quick: bool) -> list[common.Case]:
    """First pages, and sizes of what serves them."""
    for side in () if quick else (peer, ours, lean):
        side.first_page()  # no side pays for a first time
    theirs, same = common.take_turns(runs, peer.first_page, ours.first_page)
    size = peer.megabytes()
    return [
        common.Case("image", [size], [ours.megabytes()], unit="MB"),
        common.Case("image, viewer's JupyterLab", [size], [lean.megabytes()], unit="MB"),
        at_most("first page", theirs, same, PAGE),
        at_most(
            "first page, viewer's JupyterLab",
            *common.take_turns(runs, peer.first_page, lean.first_page),
            PAGE,
        ),
    ]


def tell(cases: list[common.Case]) -> list[common.Case]:
    """Say on the way what is there already: a run is long."""
    for case in cases:
        theirs, ours = case.medians
        print(f"{case.name}: {theirs:.2f} and {ours:.2f} {case.unit}", file=sys.stderr, flush=True)
    return cases


def at_most(name: str, peer: list[float], ours: list[float], part: float) -> common.Case:
    return common.Case(name, peer, ours, f"at most {part} of the time", lambda case: case.ratio >= 1 / part)


# -- engines ------------------------------------------------------------------------------------------


def podman(env: Mapping[str, str], *words: str) -> str:
    return common.run(["podman", *words], env=env).strip()


def quietly(words: common.Words, env: Mapping[str, str]) -> bool:
    return subprocess.run(list(words), env=dict(env), capture_output=True, check=False).returncode == 0


def docker_client() -> str:
    from ipython_builder.build import choice

    client = choice.docker()
    return client.program if client else sys.exit("s2i is there, but no docker that can build")


def load(image: str, docker: str, env: Mapping[str, str]) -> bool:
    """Hand an image from podman to docker; whether it was not there before."""
    if quietly([docker, "image", "inspect", image], env):
        return False
    words = ["podman", "save", "--quiet", "--format", "docker-archive", image]
    with subprocess.Popen(words, env=dict(env), stdout=subprocess.PIPE) as saved:
        words = [docker, "load", "--quiet"]
        subprocess.run(words, env=dict(env), stdin=saved.stdout, check=True, capture_output=True)
    return True


def answering(url: str) -> float:
    """The moment at which a page answered with 200, redirects followed; 0 if it did not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError), opener.open(url, timeout=60) as answer:
            if answer.status == 200:
                return time.monotonic()
        time.sleep(0.01)
    return 0.0


def secrets(folder: Path) -> Path:
    """How the peer's pip reaches an index: the same as our side, as files that no layer has."""
    chosen = settings.load()
    lines = ["[global]"]
    folder.mkdir()
    if chosen.ca_bundle:
        shutil.copyfile(chosen.ca_bundle, folder / "ca.crt")
        lines.append("cert = /run/secrets/peer/ca.crt")
    if chosen.index_url:
        lines.append(f"index-url = {chosen.index_url}")
    lines += [f"extra-index-url = {url}" for url in chosen.extra_index_urls]
    (folder / "pip.conf").write_text("".join(f"{line}\n" for line in lines))
    return folder


def base_image(env: Mapping[str, str]) -> str:
    for name in BASES:
        if quietly(["podman", "image", "exists", name], env):
            return name
    sys.exit("there is no base image: name the one that the builder image stands on, with --base")


@contextlib.contextmanager
def removed(env: Mapping[str, str]) -> Iterator[None]:
    """At the end no image of ours is there, whatever became of the benchmark."""
    try:
        yield
    finally:
        for name in ("lean", "ours", "peer", "peer-builder", "builder"):
            # By name: an image that has another one too stays. Twice: somebody else may remove one just now.
            words = ["podman", "rmi", "--force", f"localhost/{MARK}/{name}"]
            if not quietly(words, env):
                quietly(words, env)


def main() -> None:
    parser = common.parser(__doc__, runs=3)
    parser.add_argument("--builder", metavar="IMAGE", default="ipython-builder", help="our builder image")
    parser.add_argument(
        "--base", metavar="IMAGE", help=f"what both stand on (default: the first of {', '.join(BASES)})"
    )
    options = parser.parse_args()
    if not shutil.which("podman"):
        sys.exit("podman is not on PATH")
    lines = QUICK if options.quick else STACK
    s2i = os.environ.get("S2I") or shutil.which("s2i")
    left_out: list[str] = []
    with common.workplace(options.work) as work:
        (work / "tmp").mkdir()
        # podman keeps there what is mounted into builds as caches: nobody else's are used or changed.
        env = {**os.environ, "TMPDIR": str(work / "tmp")}
        with removed(env):
            builder = f"localhost/{MARK}/builder"
            podman(env, "tag", options.builder, builder)  # another `make images` meanwhile shall not count
            base = options.base or base_image(env)
            peer = Peer(work, base, (*lines, *SERVED), env)
            ours = Ours(work, "ours", builder, (*lines, *SERVED), env)
            lean = Ours(work, "lean", builder, lines, env)
            cases = tell(built(options.runs, peer, ours, quick=options.quick))
            lean.build()
            if s2i:
                cases += tell(by_s2i(options.runs, work, peer, ours, s2i))
            else:
                left_out.append("s2i, which is neither on PATH nor in $S2I")
            if registry.program():
                cases += tell([pushed(work, peer, ours)])
            else:
                left_out.append("a registry, since docker-registry is not on PATH")
            cases += tell(started(options.runs, peer, ours, lean, quick=options.quick))
    more: dict[str, Any] = {"requirements": " ".join([*lines, *SERVED])}
    more |= {"left_out": "; ".join(left_out)} if left_out else {}
    common.report("images of a repository", "pip in one layer", cases, options, **more)


if __name__ == "__main__":
    main()
