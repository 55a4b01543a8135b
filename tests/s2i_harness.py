"""What the documentation of source-to-image says that ``s2i build`` does, over a Docker engine.

The program itself is in no package registry. So the tests of our S2I scripts run through this harness always, and
through the real program too where ``$S2I`` or PATH has it: the fixture `s2i` is both in turn. What the harness takes
from the program beyond its documentation, it takes because `test_s2i_harness.py` compares the two.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pytest

from tests.dockerd import ask
from tests.engine import Engine

SCRIPTS = "io.openshift.s2i.scripts-url"
BUILD = "io.openshift.s2i.build."
ENVIRON = "/usr/bin/env"  # stands in for an image's entrypoint while a script runs


@dataclass(frozen=True)
class Built:
    """How it ended: 0, or anything else for a failure; and all that was said."""

    rc: int
    log: str


class S2I(Protocol):
    """The verbs of s2i; the program and the harness have them."""

    def build(
        self,
        docker: Engine,
        source: str | Path,
        builder: str,
        tag: str,
        *,
        incremental: bool = False,
        env: Mapping[str, str] | None = None,
        ref: str | None = None,
        context_dir: str | None = None,
        network: str | None = None,
        check: bool = True,
    ) -> Built:
        """Make image `tag`; with `check`, a build that fails fails the test."""
        ...

    def as_dockerfile(
        self, source: str | Path, builder: str, folder: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        """Write ``Dockerfile`` and what it copies into a new folder; ``build folder`` makes the image."""
        ...

    def usage(self, docker: Engine, builder: str) -> Built: ...


# -- the program ------------------------------------------------------------------------------------


def real_s2i() -> str | None:
    """The real program: ``$S2I``, or the one on PATH."""
    return os.environ.get("S2I") or shutil.which("s2i")


@dataclass(frozen=True)
class Program:
    """The real s2i."""

    path: str

    def _run(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Built:
        done = subprocess.run(
            [self.path, *words],
            env=os.environ | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return _checked(Built(done.returncode, done.stdout), check)

    def build(
        self,
        docker: Engine,
        source: str | Path,
        builder: str,
        tag: str,
        *,
        incremental: bool = False,
        env: Mapping[str, str] | None = None,
        ref: str | None = None,
        context_dir: str | None = None,
        network: str | None = None,
        check: bool = True,
    ) -> Built:
        words = [f"--env={name}={value}" for name, value in (env or {}).items()]
        words += ["--incremental"] if incremental else []
        # Without these, an image that is not there is looked for in the network, for half a minute.
        words += ["--pull-policy=never", "--incremental-pull-policy=never"]
        for option, value in (("ref", ref), ("context-dir", context_dir), ("network", network)):
            words += [f"--{option}={value}"] if value else []
        return self._run("build", source, builder, tag, *words, env=docker.env, check=check)

    def as_dockerfile(
        self, source: str | Path, builder: str, folder: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        words = [f"--env={name}={value}" for name, value in (env or {}).items()]
        self._run("build", source, builder, f"--as-dockerfile={folder / 'Dockerfile'}", *words)

    def usage(self, docker: Engine, builder: str) -> Built:
        built = self._run("usage", builder, "--pull-policy=never", env=docker.env, check=False)
        # It commits the container too, under no name.
        label = f"label={BUILD}image={builder}"
        left = docker("images", "--quiet", "--filter", "dangling=true", "--filter", label).stdout.split()
        if left:
            docker("rmi", *left, check=False)
        return built


def _checked(built: Built, check: bool) -> Built:
    if check and built.rc:
        pytest.fail(f"s2i ended with {built.rc}:\n{built.log}")
    return built


# -- the harness ------------------------------------------------------------------------------------


def build(
    docker: Engine,
    source: str | Path,
    builder: str,
    tag: str,
    *,
    incremental: bool = False,
    env: Mapping[str, str] | None = None,
    ref: str | None = None,
    context_dir: str | None = None,
    network: str | None = None,
    check: bool = True,
) -> Built:
    """``s2i build source builder tag``."""
    if not docker.has(builder):
        return _checked(Built(1, f"unable to get metadata for {builder}: no such image"), check)
    config = docker.inspect(builder)["Config"]
    with tempfile.TemporaryDirectory(prefix="ipb-s2i-") as folder:
        upload = Path(folder, "upload")
        labels, own = _stage(source, upload, ref, context_dir)
        scripts = {name: _script(config, name, own) for name in ("assemble", "run", "save-artifacts")}
        if lacking := [name for name in ("assemble", "run") if scripts[name] is None]:
            return _checked(Built(1, f"scripts {lacking} could not be found: set the label {SCRIPTS}"), check)
        log = ""
        if incremental and docker.has(tag) and scripts["save-artifacts"]:
            log = _artifacts(docker, tag, scripts["save-artifacts"], upload / "artifacts", network)
        names = [
            *_environment_file(upload / "src"),
            *(f"{name}={value}" for name, value in (env or {}).items()),
        ]
        container = _create(
            docker, builder, config, f"tar -C /tmp -xf - && {scripts['assemble']}", names, network
        )
        try:
            rc, said = _feed(docker, container, upload)
            if rc:
                return _checked(Built(1, f"{log}{said}\nnon-zero (13) exit code from {builder}"), check)
            labels |= {"io.k8s.display-name": tag, f"{BUILD}image": _named(builder)}
            body = {
                "Cmd": [scripts["run"]],
                "Entrypoint": config.get("Entrypoint") or [],
                "Env": names,
                "User": config.get("User") or "",
                "Labels": (config.get("Labels") or {}) | labels,
            }
            status, answer = ask(
                docker.env["DOCKER_HOST"], "POST", f"/commit?container={container}&repo={tag}", body
            )
            assert status == 201, answer
        finally:
            docker.rm(container)
    return Built(0, f"{log}{said}\nBuild completed successfully")


def usage(docker: Engine, builder: str) -> Built:
    """``s2i usage builder``."""
    config = docker.inspect(builder)["Config"]
    script = _script(config, "usage", set())
    with tempfile.TemporaryDirectory(prefix="ipb-s2i-") as folder:
        upload = Path(folder, "upload")
        for name in ("scripts", "src"):
            (upload / name).mkdir(parents=True)
        container = _create(docker, builder, config, f"tar -C /tmp -xf - && {script}", [], None)
        try:
            rc, said = _feed(docker, container, upload)
        finally:
            docker.rm(container)
    return Built(min(rc, 1), said)


def as_dockerfile(
    source: str | Path, builder: str, folder: Path, *, env: Mapping[str, str] | None = None
) -> None:
    """``s2i build source builder --as-dockerfile folder/Dockerfile``; it looks at no image."""
    labels, own = _stage(source, folder / "upload", None, None, dockerfile=True)
    labels[f"{BUILD}image"] = _named(builder)
    entries = [*_environment_file(folder / "upload" / "src"), *(f"{k}={v}" for k, v in (env or {}).items())]
    lines = [f"FROM {builder}"]
    lines += ["LABEL " + " ".join(f"{_quoted(k)}={_quoted(v)}" for k, v in labels.items())]
    lines += [
        "ENV " + " ".join(f"{k}={_quoted(v)}" for k, _, v in (one.partition("=") for one in entries))
    ] * bool(entries)
    lines += ["COPY --chown=1001:0 upload/scripts /tmp/scripts"] * bool(own)
    lines += ["COPY --chown=1001:0 upload/src /tmp/src", "USER 1001"]
    for verb, name in (("RUN", "assemble"), ("CMD", "run")):
        lines.append(f"{verb} {'/tmp/scripts' if name in own else '/usr/libexec/s2i'}/{name}")
    (folder / "Dockerfile").write_text("\n".join([*lines, ""]))


def _named(image: str) -> str:
    """The name with its tag."""
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _quoted(value: str) -> str:
    return '"' + re.sub(r'([$"\\])', r"\\\1", value) + '"'


def _stage(
    source: str | Path, upload: Path, ref: str | None, context_dir: str | None, dockerfile: bool = False
) -> tuple[dict[str, str], set[str]]:
    """Fill ``src`` and ``scripts``; the labels that say what it was, and the scripts that the repository has."""
    place, scripts = upload / "src", upload / "scripts"
    scripts.mkdir(parents=True)
    local = Path(str(source).removeprefix("file://"))
    if local.is_dir() and not (local / ".git").exists():
        _copy(local / (context_dir or "."), place)
        labels = {"source-location": str(local)}
    else:
        clone = upload.parent / "clone" if context_dir else place
        subprocess.run(["git", "clone", "--quiet", str(source), clone], check=True, capture_output=True)

        def git(*words: str) -> str:
            return subprocess.run(
                ["git", *words], cwd=clone, check=True, capture_output=True, text=True
            ).stdout.strip()

        git("checkout", "--quiet", ref or "HEAD")
        git("submodule", "update", "--init", "--recursive")
        labels = {
            "source-location": git("config", "--get", "remote.origin.url"),
            "commit.ref": git("rev-parse", "--abbrev-ref", "HEAD"),
            "commit.id": git("rev-parse", "--verify", "HEAD"),
            "commit.author": git("show", "-s", "--format=%an <%ae>", "HEAD"),
            "commit.date": git("show", "-s", "--format=%ad", "HEAD"),
            "commit.message": git("show", "-s", "--format=%<(80,trunc)%s", "HEAD"),
        }
        if context_dir:
            _copy(clone / context_dir, place)
            shutil.rmtree(clone)
    if context_dir:
        labels["source-context-dir"] = context_dir
    own = set()
    for name in ("assemble", "run", "save-artifacts"):
        script = place / ".s2i" / "bin" / name
        if script.exists():
            script.rename(scripts / name)
            (scripts / name).chmod(0o755)
            own.add(name)
    return {f"{BUILD}{name}": value for name, value in labels.items() if value}, own


def _copy(source: Path, target: Path) -> None:
    """A folder without ``.git``; links become what they point at, if there is something."""
    target.mkdir(parents=True)
    target.chmod(source.stat().st_mode & 0o777)
    for path in source.iterdir():
        if path.name == ".git":
            continue
        if path.is_symlink() and not path.exists():
            (target / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            _copy(path, target / path.name)
        else:
            shutil.copy(path, target / path.name)


def _script(config: Any, name: str, own: set[str]) -> str | None:
    """Where a script is in the container: the repository's own in the upload, else where the image's label says."""
    if name in own:
        return f"/tmp/scripts/{name}"
    url = (config.get("Labels") or {}).get(SCRIPTS, "")
    return f"{url.removeprefix('image://')}/{name}" if url.startswith("image://") else None


def _environment_file(source: Path) -> list[str]:
    """``NAME=value`` lines of ``.s2i/environment``."""
    file = source / ".s2i" / "environment"
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.partition("=") for line in lines if not line.startswith("#")]
    return [f"{name.strip()}={value.strip()}" for name, equals, value in pairs if equals and name.strip()]


def _create(docker: Engine, image: str, config: Any, script: str, env: list[str], network: str | None) -> str:
    """A container that will run a script in place of the image's command, with the upload as its input."""
    body = {
        "Image": image,
        "Cmd": ["/bin/sh", "-c", script],
        "Env": env,
        "OpenStdin": True,
        "StdinOnce": True,
        "HostConfig": {"NetworkMode": network or "default"},
    }
    if config.get("Entrypoint"):
        body["Entrypoint"] = [ENVIRON]
    status, answer = ask(docker.env["DOCKER_HOST"], "POST", "/containers/create", body)
    assert status == 201, answer
    return str(answer["Id"])


def _feed(docker: Engine, container: str, upload: Path) -> tuple[int, str]:
    """Run the container with a tar of the upload, ``.git`` left out; its exit code and what it says."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if ".git" in member.name.split("/") else member

    with tempfile.TemporaryFile() as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(upload.iterdir()):
                archive.add(path, path.name, filter=wanted)
        stream.seek(0)
        done = subprocess.run(
            [docker.program, "start", "--attach", "--interactive", container],
            env=docker.environ,
            stdin=stream,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    return done.returncode, done.stdout


def _artifacts(docker: Engine, image: str, script: str | None, folder: Path, network: str | None) -> str:
    """Run save-artifacts of the last image and unpack what it prints; what goes wrong makes a clean build."""
    config = docker.inspect(image)["Config"]
    words = ["run", "--rm", "--label", docker.mine, "--network", network or "default"]
    words += ["--entrypoint", ENVIRON] if config.get("Entrypoint") else []
    folder.mkdir(mode=0o700)
    with tempfile.TemporaryFile() as stream:
        done = subprocess.run(
            [docker.program, *words, image, str(script)],
            env=docker.environ,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        size = stream.tell()
        stream.seek(0)
        try:
            if size:
                _unpack(stream, folder)
        except tarfile.TarError:
            shutil.rmtree(folder)
            done.returncode = 1
    warning = "Clean build will be performed because of error saving previous build artifacts\n"
    return done.stderr + (warning if done.returncode else "")


def _unpack(stream: IO[bytes], folder: Path) -> None:
    """As s2i unpacks: nothing twice, no link that leads out, and a hard link becomes an empty file."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = Path(os.path.normpath(folder / member.name.lstrip("/")))
            if not path.is_relative_to(folder):
                continue
            os.makedirs(path if member.isdir() else path.parent, 0o700, exist_ok=True)
            if member.isdir():
                path.chmod(member.mode & 0o7777)
            elif path.exists():
                continue
            elif member.issym():
                if Path(os.path.normpath(path.parent / member.linkname.lstrip("/"))).is_relative_to(folder):
                    path.symlink_to(member.linkname)
            elif member.isfile() or member.islnk():
                content = archive.extractfile(member) if member.isfile() else None
                path.write_bytes(content.read() if content else b"")
                path.chmod(member.mode & 0o7777)
                os.utime(path, (member.mtime, member.mtime))


@dataclass(frozen=True)
class Harness:
    """This module's functions as an object."""

    build = staticmethod(build)
    as_dockerfile = staticmethod(as_dockerfile)
    usage = staticmethod(usage)


@pytest.fixture(params=["harness", "program"])
def s2i(request: pytest.FixtureRequest) -> S2I:
    """What builds: the harness, and the real program where it is."""
    if request.param == "harness":
        return Harness()
    path = real_s2i()
    if path is None:
        pytest.skip("s2i is not on PATH and not in $S2I: its test runs through the harness alone")
    return Program(path)


# -- comparing images -------------------------------------------------------------------------------

COMPARED = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir")
VOLATILE = ("io.k8s.display-name",)  # the tag


def config_of(docker: Engine, image: str) -> dict[str, Any]:
    """Of an image's configuration what two builds of the same source share."""
    config = docker.inspect(image)["Config"]
    labels = {name: value for name, value in (config["Labels"] or {}).items() if name not in VOLATILE}
    return {name: config[name] for name in COMPARED} | {"Labels": labels}


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    labels = {f"label {name}": value for name, value in config["Labels"].items()}
    return {name: config[name] for name in COMPARED} | labels


def files_of(docker: Engine, image: str, *below: str) -> dict[str, str]:
    """The files below these folders: path -> type, owner, group, mode, and digest or link target."""
    container = docker("create", "--label", docker.mine, image, "true").stdout.strip()
    found = {}
    try:
        for folder in below:
            copy = [docker.program, "cp", f"{container}:{folder}", "-"]
            with (
                subprocess.Popen(copy, env=docker.environ, stdout=subprocess.PIPE) as copied,
                tarfile.open(fileobj=copied.stdout, mode="r|") as archive,
            ):
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    what = hashlib.file_digest(content, "sha256").hexdigest() if content else member.linkname
                    path = os.path.normpath(Path(folder).parent / member.name)
                    found[path] = f"{member.type.decode()} {member.uid}:{member.gid} {member.mode:o} {what}"
    finally:
        docker.rm(container)
    return found


def differences(
    docker: Engine,
    one: str,
    other: str,
    below: tuple[str, ...] = ("/opt/app-root", "/usr/libexec"),
    ignored: str = "(?!)",
) -> list[str]:
    """What two images differ in, a line each; files whose path matches `ignored` may differ."""
    found = []
    for name, (here, there) in _pairs(_flat(config_of(docker, one)), _flat(config_of(docker, other))).items():
        found += [f"{name}: {json.dumps(here)} != {json.dumps(there)}"] if here != there else []
    for path, (here, there) in _pairs(files_of(docker, one, *below), files_of(docker, other, *below)).items():
        found += [f"{path}: {here} != {there}"] if here != there and not re.search(ignored, path) else []
    return found


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (one.get(name), other.get(name)) for name in sorted({*one, *other})}
