"""Programs that build images: one small protocol, and podman, buildah and docker behind it.

An image gets its name last: until all of it is there, nothing has that name, or still what had it before.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ipython_builder import commands
from ipython_builder.build import leftovers, words
from ipython_builder.build.reference import Reference
from ipython_builder.errors import Unavailable

GRACE_SECONDS = 10.0  # in which an engine that is interrupted may put away what it has begun
Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """An image that an engine has.

    Attributes:
        name: under which this engine finds it.
        labels: its labels.
        platform: such as ``linux/amd64``.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    platform: str


MOMENT = 2.0
_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")
_BROKEN = re.compile(r'locating item named "manifest" for image with ID "([0-9a-f]{64})"')


@dataclass(frozen=True)
class Order:
    """What an engine is to build.

    Attributes:
        folder: the context; its ``Containerfile`` says how.
        epoch: seconds; the time of the image, and of its files where the engine can do that.
        platform: None for the engine's own.
        secrets: id -> file; seen by steps that ask for them, and in no layer.
        hidden: texts that are shown nowhere.
        cached: whether layers that were built before may be taken.
    """

    folder: Path
    epoch: int
    platform: str | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    cached: bool = True


class Engine(Protocol):
    """A program that builds images and keeps them."""

    name: str

    def find(self, name: Reference) -> Image | None:
        """The image of this name, if the engine has it.

        Raises:
            Unavailable: the engine does not work.
        """

    def pull(self, name: Reference, say: Say) -> None:
        """Fetch an image.

        Raises:
            Unavailable: its registry does not answer, or refuses.
        """

    def build(self, order: Order, say: Say) -> str:
        """Build an image without a name and return its id.

        Raises:
            BuilderError: as the step that failed says; what was begun is put away.
        """

    def tag(self, image: str, name: Reference) -> None:
        """Give an image a name."""

    def forget(self, name: Reference) -> None:
        """Take a name away; an image that has no other and is used by none goes with it."""

    def push(self, name: Reference, say: Say) -> str:
        """Send an image to its registry; layers that are there already are not sent.

        Returns:
            Its digest there, as in ``sha256:…``; empty if the engine does not say it.

        Raises:
            Unavailable: the registry does not answer, or refuses.
        """


class _Client:
    """What the three have in common."""

    name = ""
    _inspect: tuple[str, ...] = ("image", "inspect", "--format", "{{json .}}")
    _bare_host = ""  # what the engine calls its own store in names

    def __init__(self, program: str) -> None:
        self.program = program

    def find(self, name: Reference) -> Image | None:
        """See `Engine`."""
        for full in self._names(name):
            answer = self._run(*self._inspect, full)
            if answer.returncode == 0:
                said = json.loads(answer.stdout)
                return self._image(full, said[0] if isinstance(said, list) else said)
            if not words.no_such_image(answer.stderr):
                raise Unavailable(
                    f"{self.name} does not work:\n{words.end(answer.stderr)}", words.advice(answer.stderr)
                )
        return None

    def pull(self, name: Reference, say: Say) -> None:
        """See `Engine`."""
        answer = self._run("pull", *self._plain(name), str(name), say=say)
        if answer.returncode != 0:
            raise words.registry_failure(f"{name} cannot be fetched", answer.stderr)

    def tag(self, image: str, name: Reference) -> None:
        """See `Engine`."""
        answer = self._run("tag", image, str(name))
        if answer.returncode != 0:
            raise words.failure(f"{self.name} cannot name the image {name}", answer.stderr)

    def forget(self, name: Reference) -> None:
        """See `Engine`."""
        self._run("rmi", str(name))

    def push(self, name: Reference, say: Say) -> str:
        """See `Engine`."""
        answer = self._run("push", *self._plain(name), str(name), say=say)
        if answer.returncode != 0:
            raise words.registry_failure(f"{name} cannot be pushed", answer.stderr)
        digests = _DIGEST.findall(answer.stderr)
        return str(digests[-1]) if digests else ""

    def _common(self, order: Order, id_file: Path) -> list[str]:
        """The options of a build that all of them have."""
        found = ["--file", str(order.folder / "Containerfile"), "--iidfile", str(id_file)]
        found += [] if order.cached else ["--no-cache"]
        found += ["--platform", order.platform] if order.platform else []
        for name, path in order.secrets.items():
            found += ["--secret", f"id={name},src={path}"]
        return found

    def _build(self, order: Order, argv: Sequence[str], id_file: Path, say: Say) -> str:
        answer = self._run(*argv, str(order.folder), say=say, hidden=order.hidden, cwd=order.folder)
        if answer.returncode != 0:
            raise words.failure(f"{self.name} cannot build the image", answer.stderr)
        return id_file.read_text().strip().removeprefix("sha256:")

    def _names(self, name: Reference) -> list[str]:
        own = [f"{self._bare_host}/{name}"] if self._bare_host and not name.host else []
        return [*own, str(name)]

    def _image(self, name: str, said: Any) -> Image:
        labels = (said.get("Config") or {}).get("Labels") or {}
        return Image(said["Id"].removeprefix("sha256:"), name, labels, f"{said['Os']}/{said['Architecture']}")

    def _plain(self, name: Reference) -> list[str]:
        """Options for a registry that may speak plain http, which only this machine's own may."""
        return ["--tls-verify=false"] if name.loopback else []

    def _run(
        self,
        *argv: str,
        say: Say | None = None,
        hidden: Sequence[str] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> commands.Result:
        """Run the engine; with `say`, all that it says is one stream."""
        return commands.run(
            [self.program, *argv],
            env=env,
            cwd=cwd,
            on_line=(lambda line: say(words.plain(line))) if say else None,
            secrets=hidden,
            merged=say is not None,
            grace=GRACE_SECONDS,
        )


class Podman(_Client):
    """podman; its names without a registry are those of localhost."""

    name = "podman"
    _bare_host = "localhost"
    _verb: tuple[str, ...] = ("build",)

    def build(self, order: Order, say: Say) -> str:
        """See `Engine`."""
        id_file = order.folder.with_suffix(".id")
        mark = leftovers.mark()
        # A builder's health check is in docker's format only. One time for all files: the same digests.
        # The mark: a build that is killed leaves its container, and nothing else in that is known to be ours.
        argv = [
            *self._verb,
            *("--format", "docker", "--layers", "--timestamp", str(order.epoch), "--pull=missing"),
            *("--add-host", f"{mark}:127.0.0.1"),
            *self._common(order, id_file),
        ]
        try:
            return self._build(order, argv, id_file, say)
        except BaseException:
            leftovers.remove(mark, self._store(), self._remove)
            self.mend()
            raise

    def mend(self) -> None:
        """Remove an image that has no manifest: with one, podman 4.3 lists no image any more.

        A podman that is interrupted while it writes an image leaves one; one that is being written just now
        has its manifest a moment later.
        """
        broken = self._broken()
        if broken:
            time.sleep(MOMENT)
            if self._broken() == broken:
                self._run("rmi", "--force", broken)

    def _broken(self) -> str | None:
        found = _BROKEN.search(self._run("images").stderr)
        return found[1] if found else None

    def _store(self) -> Path:
        answer = self._run("info", "--format", "{{.Store.GraphRoot}}")
        return Path(answer.stdout.strip() or "/nowhere")

    def _remove(self, container: str) -> None:
        self._run("rm", "--force", container)

    def push(self, name: Reference, say: Say) -> str:
        """See `Engine`. It writes the digest into a file, and says those of parts."""
        with commands.scratch() as folder:
            file = folder / "digest"
            answer = self._run("push", *self._plain(name), "--digestfile", str(file), str(name), say=say)
            if answer.returncode != 0:
                raise words.registry_failure(f"{name} cannot be pushed", answer.stderr)
            return file.read_text().strip()


class Buildah(Podman):
    """buildah, with the same store."""

    name = "buildah"
    _verb = ("build",)
    _inspect = ("inspect", "--type", "image")

    def _image(self, name: str, said: Any) -> Image:
        config = said.get("OCIv1") or {}
        labels = (config.get("config") or {}).get("Labels") or {}
        return Image(said["FromImageID"], name, labels, f"{config.get('os')}/{config.get('architecture')}")

    def _store(self) -> Path:
        return Path(
            json.loads(self._run("info").stdout or "{}").get("store", {}).get("GraphRoot", "/nowhere")
        )

    def _remove(self, container: str) -> None:
        self._run("rm", container)


class Docker(_Client):
    """docker with BuildKit, without which steps cannot be given secrets."""

    name = "docker"

    def build(self, order: Order, say: Say) -> str:
        """See `Engine`."""
        id_file = order.folder.with_suffix(".id")
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
        argv = ["build", "--progress=plain", *self._common(order, id_file)]
        # Without a value docker takes the caller's; podman does so by itself.
        argv += [word for name in proxies for word in ("--build-arg", name)]
        argv += ["--build-arg", f"SOURCE_DATE_EPOCH={order.epoch}"]
        return self._build(order, argv, id_file, say)

    def _plain(self, name: Reference) -> list[str]:
        return []  # its daemon knows by itself

    def _run(self, *argv: str, env: Mapping[str, str] | None = None, **more: Any) -> commands.Result:
        # The builder that is chosen may be one that does not see the daemon's own images.
        env = dict(os.environ if env is None else env) | {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
        return super()._run(*argv, env=env, **more)

    def check(self) -> str | None:
        """Why this docker cannot build with BuildKit; None if it can."""
        answer = self._run("version", "--format", "{{.Client.Version}}")
        version = re.match(r"\d+", answer.stdout.strip())
        if version is None:
            return f"{self.program} does not say its version"
        if int(version[0]) < 18:
            return f"{self.program} is too old for BuildKit"
        if int(version[0]) >= 23 and self._run("buildx", "version").returncode != 0:
            return f"{self.program} has no BuildKit: its plugin buildx is missing"
        return None
