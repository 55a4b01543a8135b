"""Which engine builds: the one that is asked for, or the first that works and has the builder image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from ipython_builder.build.engines import Buildah, Docker, Engine, Image, Podman, Say
from ipython_builder.build.reference import Reference
from ipython_builder.errors import Unavailable


def podman() -> Podman | None:
    """podman, if it is on PATH."""
    found = shutil.which("podman")
    return Podman(found) if found else None


def buildah() -> Buildah | None:
    """buildah, if it is on PATH."""
    found = shutil.which("buildah")
    return Buildah(found) if found else None


def docker() -> Docker | None:
    """The first docker on PATH that can build with BuildKit.

    Raises:
        Unavailable: there are only others.
    """
    reasons = []
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("docker", path=folder) if folder else None
        if found:
            client = Docker(found)
            reason = client.check()
            if reason is None:
                return client
            reasons.append(reason)
    if reasons:
        raise Unavailable("; ".join(dict.fromkeys(reasons)), "install docker-buildx, or use podman")
    return None


_KINDS: dict[str, Callable[[], Engine | None]] = {"podman": podman, "buildah": buildah, "docker": docker}


def choose(wanted: str | None, builder: Reference, say: Say) -> tuple[Engine, Image]:
    """The engine that is asked for, or the first that works and has the builder image; and that image.

    Raises:
        Unavailable: no engine, none that works, or none that has or can fetch the builder image.
    """
    working: list[Engine] = []
    troubles: list[Unavailable] = []
    for name in [wanted] if wanted else _KINDS:
        try:
            engine = _KINDS[name]()
            if engine is None:
                continue
            image = engine.find(builder)
        except Unavailable as error:
            troubles.append(error)
            continue
        if image:
            return engine, image
        working.append(engine)
    if working and builder.remote:
        working[0].pull(builder, say)
        image = working[0].find(builder)
        if image:
            return working[0], image
    if working:
        names = ", ".join(engine.name for engine in working)
        name = str(builder).removesuffix(":latest")
        raise Unavailable(
            f"{names} has no image {name}" if len(working) == 1 else f"none of {names} has an image {name}",
            "make it with `make images` in a checkout of ipython-builder, or name another one with --builder",
        )
    if troubles:
        raise Unavailable("\n".join(error.message for error in troubles), troubles[0].hint)
    what = f"{wanted} is" if wanted else "neither podman nor buildah nor docker is"
    raise Unavailable(f"{what} on PATH", "install podman (`apt-get install podman`), or mend PATH")
