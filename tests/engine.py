"""The command line of podman or docker, as the tests use it; what a session makes has its label and goes with it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said

LABEL = "ipython-builder-tests"


@dataclass
class Engine:
    """The command line of podman or docker.

    Attributes:
        name: ``podman`` or ``docker``.
        program: the one that is run.
        env: what must be in the environment of whatever uses this engine, beyond the caller's.
    """

    name: str
    program: str
    env: dict[str, str]
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment with `env`."""
        return os.environ | self.env

    def __call__(
        self, *words: str | Path, check: bool = True, stdin: str | None = None, timeout: float | None = None
    ) -> Said:
        """Run it to its end. A failure fails the test, unless `check` is false."""
        done = subprocess.run(
            [self.program, *words],
            env=self.environ,
            cwd="/",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        if check and said.rc:
            what = " ".join(map(str, words))
            pytest.fail(f"{self.name} {what} ended with {said.rc}:\n{said.stdout}\n{said.stderr}")
        return said

    @property
    def mine(self) -> str:
        """The label of what this session makes; for containers, networks and volumes that a test makes itself."""
        return f"{LABEL}={self.session}"

    def run(self, image: str, *command: str, options: tuple[str, ...] = (), check: bool = True) -> Said:
        """Run a container to its end and remove it."""
        return self("run", "--rm", "--label", self.mine, *options, image, *command, check=check)

    def start(self, image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        """Start a container that is removed after the session, if the test has not done so."""
        said = self("run", "--detach", "--label", self.mine, *options, image, *command)
        return Container(self, said.stdout.strip())

    def network(self, *options: str) -> str:
        """A network of its own; removed after the session."""
        name = f"{LABEL}-{uuid.uuid4().hex[:8]}"
        self("network", "create", "--label", self.mine, *options, name)
        return name

    def volume(self) -> str:
        """An empty volume; removed after the session."""
        name = f"{LABEL}-{uuid.uuid4().hex[:8]}"
        self("volume", "create", "--label", self.mine, name)
        return name

    def tag(self, stem: str = "image") -> str:
        """A name for an image that nobody has; the image is removed after the session."""
        return f"localhost/{LABEL}-{self.session}/{stem}-{uuid.uuid4().hex[:8]}"

    def build(self, containerfile: str, folder: Path, stem: str = "image", *options: str) -> str:
        """The name of an image that is made of this text and a folder; removed after the session."""
        name = self.tag(stem)
        with tempfile.NamedTemporaryFile("w", prefix="Containerfile-") as file:
            file.write(containerfile)
            file.flush()
            self("build", "--quiet", "--tag", name, *options, "--file", file.name, folder)
        return name

    def has(self, image: str) -> bool:
        return self("image", "inspect", image, check=False).rc == 0

    def inspect(self, thing: str, kind: str = "image") -> Any:
        """What the engine knows of an image, or of a thing of another kind."""
        return self(kind, "inspect", thing).json[0]

    def rm(self, *containers: str) -> None:
        at_once = ("--time", "0") if self.name == "podman" else ()
        self("rm", "--force", "--volumes", *at_once, *containers, check=False)

    def images(self, *options: str) -> list[str]:
        """What it lists; podman gives up where another session removes an image in the meantime."""
        for _ in range(20):
            said = self("images", *options, check=False)
            if not said.rc:
                return said.stdout.split()
        return self("images", *options).stdout.split()

    def clean(self) -> None:
        """Remove what this session made."""
        mine = f"label={self.mine}"
        if left := self("ps", "--all", "--quiet", "--filter", mine).stdout.split():
            self.rm(*left)
        for kind in ("network", "volume"):
            if left := self(kind, "ls", "--quiet", "--filter", mine).stdout.split():
                self(kind, "rm", *left, check=False)
        listed = self.images("--format", "{{.Repository}}:{{.Tag}}")
        ours = f"localhost/{LABEL}-{self.session}/"
        if left := [name for name in listed if name.startswith(ours)]:
            self("rmi", "--force", *left, check=False)
        # s2i names its images in a label too, where those that lost their name to the next one keep it.
        named = "label=io.k8s.display-name"
        for image in self.images("--quiet", "--filter", "dangling=true", "--filter", named):
            said = self("image", "inspect", image, check=False)
            if said.rc == 0 and said.json[0]["Config"]["Labels"]["io.k8s.display-name"].startswith(ours):
                self("rmi", "--force", image, check=False)


@dataclass(frozen=True)
class Container:
    """A container that runs."""

    engine: Engine
    id: str

    def exec(self, *command: str, options: tuple[str, ...] = (), check: bool = True) -> Said:
        return self.engine("exec", *options, self.id, *command, check=check)

    @property
    def logs(self) -> str:
        said = self.engine("logs", self.id)
        return said.stdout + said.stderr

    def inspect(self) -> Any:
        return self.engine.inspect(self.id, "container")

    def rm(self) -> None:
        self.engine.rm(self.id)
