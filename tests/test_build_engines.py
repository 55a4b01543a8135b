"""Real engines, with a builder image of a few megabytes (`small_builder`)."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import tarfile
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipython_builder.build import engines
from tests import small_builder
from tests.conftest import Cli, require
from tests.engine import Engine
from tests.engines import Registry
from tests.workbench import git, notebook, until

pytestmark = [pytest.mark.slow, pytest.mark.container]
ENGINES = ("podman", "buildah", "docker")
LABEL = "io.openshift.s2i.scripts-url"


@dataclass
class Stand:
    """An engine with a builder image in it, and names that only this test uses.

    Attributes:
        name: what `--engine` is given.
        engine: podman stands for buildah too: both have the same images.
        builder: the image.
        prefix: of all names; what has it is removed after the session.
    """

    name: str
    engine: Engine
    builder: str
    prefix: str

    def image(self, name: str) -> Any:
        return self.engine.inspect(name)

    def layers(self, name: str) -> list[str]:
        layers: list[str] = self.image(name)["RootFS"]["Layers"]
        return layers

    def inside(self, name: str, *words: str) -> str:
        return self.engine.run(name, *words, options=("--network", "none")).stdout.strip()

    def names(self) -> str:
        return "\n".join(self.engine.images("--format", "{{.Repository}}:{{.Tag}}"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_builder.write(tmp_path_factory.mktemp("small") / "context")


@pytest.fixture(params=ENGINES)
def stand(request: pytest.FixtureRequest, small: Path) -> Stand:
    require(request.param)
    engine = request.getfixturevalue("docker" if request.param == "docker" else "podman")
    builder = engine.build((small / "Containerfile").read_text(), small, "builder")
    return Stand(request.param, engine, builder, engine.tag("build"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    notebook(root / "a.ipynb", "1")
    (root / "requirements.txt").write_text(f"six\nname-{uuid.uuid4().hex[:8]}\n")
    git(root, "init", "-q")
    commit(root)
    return root


def commit(root: Path) -> str:
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    return git(root, "rev-parse", "HEAD")


def build(cli: Cli, stand: Stand, root: Path | str, name: str, *more: str, **options: Any) -> Any:
    return build_as(cli, stand, root, f"{stand.prefix}-{name}", "--builder", stand.builder, *more, **options)


def build_as(cli: Cli, stand: Stand, root: Path | str, image: str, *more: str, **options: Any) -> Any:
    return cli("build", root, image, "--engine", stand.name, *more, env=stand.engine.env, **options)


def test_a_changed_notebook_changes_the_layer_of_the_notebooks_alone(
    cli: Cli, stand: Stand, repository: Path
) -> None:
    first = build(cli, stand, repository, "a:1", "--json", check=True).json
    assert first["layers"] == ["dependencies", "source"]
    assert first["engine"] == stand.name
    notebook(repository / "a.ipynb", "2")
    commit(repository)
    build(cli, stand, repository, "a:2", check=True)
    one, two = (stand.layers(f"{stand.prefix}-a:{tag}") for tag in "12")
    assert one[:-1] == two[:-1]
    assert one[-1] != two[-1]
    (repository / "requirements.txt").write_text("seven\n")
    build(cli, stand, repository, "a:3", check=True)
    three = stand.layers(f"{stand.prefix}-a:3")
    base = stand.layers(stand.builder)
    assert three[: len(base)] == one[: len(base)] == base
    assert three[len(base)] != one[len(base)]


def test_what_is_in_it(cli: Cli, stand: Stand, repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    epoch = int(git(repository, "show", "-s", "--format=%ct"))
    (repository / ".env").write_text("TOKEN=hunter2")
    (repository / ".git" / "info" / "exclude").write_text(".env\n")
    made = build(
        cli, stand, repository, "b", "--json", "--image-label", 'team=the "$HOME" \\team', check=True
    ).json
    name = f"{stand.prefix}-b"
    said = stand.inside(
        name, "stat", "-c", "%n %u:%g %a %Y", "/opt/app-root/src", "/opt/app-root/src/a.ipynb"
    )
    assert f"/opt/app-root/src/a.ipynb 1001:0 664 {epoch}" in said.splitlines()
    assert said.splitlines()[0].startswith("/opt/app-root/src 1001:0 775 ")
    assert stand.inside(name, "ls", "-A", "/opt/app-root/src").split() == ["a.ipynb", "requirements.txt"]
    assert "src" not in stand.inside(name, "ls", "/tmp").split()
    facts = json.loads(stand.inside(name, "cat", "/opt/app-root/etc/image.json"))
    assert (facts["commit"], facts["notebooks"]) == (head, ["a.ipynb"])
    config = stand.image(name)["Config"]
    assert config["Cmd"] == ["/usr/libexec/s2i/run"]
    assert config["User"] == "1001"
    labels = config["Labels"]
    assert labels == made["labels"]
    assert labels["team"] == 'the "$HOME" \\team'
    assert labels["org.opencontainers.image.revision"] == head
    assert labels["io.openshift.build.commit.id"] == head
    assert "org.opencontainers.image.source" not in labels  # a path of this machine helps nobody else
    assert labels[LABEL]


def test_the_same_input_gives_the_same_layers(cli: Cli, stand: Stand, repository: Path) -> None:
    for tag in "12":
        build(cli, stand, repository, f"c:{tag}", "--no-cache", check=True)
    one, two = (stand.layers(f"{stand.prefix}-c:{tag}") for tag in "12")
    if stand.name == "docker":  # it gives files the time at which they were made
        assert one[:-2] == two[:-2]
    else:
        assert one == two


def test_a_failed_build_leaves_the_name_alone(cli: Cli, stand: Stand, repository: Path) -> None:
    (repository / "requirements.txt").write_text("nosuchpackage\n")
    said = build(cli, stand, repository, "d", "--json")
    assert said.rc == 3
    assert said.json["error"]["message"] == (
        "the requirements cannot be had together:\n  nosuchpackage is nowhere"
    )
    assert said.json["error"]["hint"] == "change the requirement"
    assert f"{stand.prefix}-d" not in stand.names()
    (repository / "requirements.txt").write_text("six\n")
    build(cli, stand, repository, "d", check=True)
    before = stand.image(f"{stand.prefix}-d")["Id"]
    (repository / "requirements.txt").write_text("nosuchpackage\n")
    assert build(cli, stand, repository, "d").rc == 3
    assert stand.image(f"{stand.prefix}-d")["Id"] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(
    cli: Cli, stand: Stand, repository: Path, number: int, tmp_path: Path
) -> None:
    (repository / "requirements.txt").write_text("slowpackage\n")
    (tmp_path / "temporary").mkdir()
    words = ["--engine", stand.name, "--builder", stand.builder, "--progress", "json"]
    process = cli.start(
        "build",
        repository,
        f"{stand.prefix}-e",
        *words,
        env=stand.engine.env | {"TMPDIR": str(tmp_path / "temporary")},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"waiting"' in line:
            break
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    left = {path.name for path in (tmp_path / "temporary").iterdir()}
    assert left <= {"buildah-cache"}  # what steps keep for the next build
    assert f"{stand.prefix}-e" not in stand.names()

    def at_work() -> bool:
        words = ["ps", "--all", "--format", "{{.Image}}"] + ["--external"] * (stand.name != "docker")
        return stand.builder in stand.engine(*words).stdout

    until(lambda: not at_work(), "no container of the build is there")
    until(lambda: not [p for p in Path("/proc").glob("[0-9]*") if _waits(p)], "nothing runs in one")


def _waits(process: Path) -> bool:
    try:
        return b"slowpackage" in (process / "cmdline").read_bytes() or (
            (process / "cmdline").read_bytes() == b"sleep\x003600\0"
            and "ipython-builder-context" in (process / "mountinfo").read_text()
        )
    except OSError:
        return False


def test_secrets_are_there_for_the_installation_and_nowhere_else(
    cli: Cli, stand: Stand, repository: Path, tmp_path: Path
) -> None:
    secret, authority = f"secret{uuid.uuid4().hex}", f"authority{uuid.uuid4().hex}"
    (tmp_path / "ca.pem").write_text(authority)
    said = build(
        cli, stand, repository, "f", "--progress", "json", "--ca-bundle", str(tmp_path / "ca.pem"),
        "--index-url", f"https://me:{secret}@index.example/simple", check=True,
    )  # fmt: skip
    assert "authorities are there" in said.stderr
    assert 'index_url = \\"https://***@index.example/simple' in said.stderr
    assert secret not in said.stderr + said.stdout
    stand.engine("save", "-o", str(tmp_path / "image.tar"), f"{stand.prefix}-f")
    content = b"".join(unpacked(tmp_path / "image.tar"))
    assert b"requirements.txt" in content
    for text in (secret, authority, "index.example"):
        assert text.encode() not in content


def unpacked(path: Path) -> Iterator[bytes]:
    """Every file of a saved image, layers as they are and unpacked."""
    with tarfile.open(path) as archive:
        for member in archive:
            if file := archive.extractfile(member) if member.isfile() else None:
                raw = file.read()
                yield gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def test_a_repository_with_scripts_of_its_own(cli: Cli, stand: Stand, repository: Path) -> None:
    scripts = repository / ".s2i" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "assemble").write_text("#!/bin/sh\necho own\nexec /usr/libexec/s2i/assemble\n")
    (scripts / "run").write_text("#!/bin/sh\necho it runs\n")
    (repository / ".s2i" / "environment").write_text("COLOUR=blue\n")
    head = commit(repository)
    made = build(cli, stand, repository, "g", "--json", check=True).json
    assert made["layers"] == ["everything"]
    name = f"{stand.prefix}-g"
    assert stand.inside(name) == "it runs"
    said = stand.inside(name, "cat", "/opt/app-root/everything").splitlines()
    assert "COLOUR=blue" in said
    assert f"OPENSHIFT_BUILD_COMMIT={head}" in said
    assert "COLOUR=blue" in stand.image(name)["Config"]["Env"]
    assert "src" not in stand.inside(name, "ls", "/tmp").split()
    before = stand.layers(name)
    build(cli, stand, repository, "g", check=True)
    assert stand.layers(name) == before
    notebook(repository / "a.ipynb", "2")
    build(cli, stand, repository, "g", check=True)
    assert stand.layers(name) != before
    assert build(cli, stand, repository, "g", "--with", "six").rc == 2


def test_a_hook_after_the_build(cli: Cli, stand: Stand, repository: Path) -> None:
    (repository / ".ipython-builder").mkdir()
    (repository / ".ipython-builder" / "post-build").write_text("#!/bin/sh\n")
    (repository / ".ipython-builder" / "post-build").chmod(0o755)
    made = build(cli, stand, repository, "h", "--json", check=True).json
    assert made["layers"] == ["dependencies", "source", "post-build"]
    assert "a.ipynb" in stand.inside(f"{stand.prefix}-h", "cat", "/opt/app-root/after")


def test_a_hook_whose_work_was_pruned(cli: Cli, podman: Engine, small: Path, repository: Path) -> None:
    builder = podman.build((small / "Containerfile").read_text(), small, "builder")
    hooks = repository / ".ipython-builder"
    hooks.mkdir()
    (hooks / "pre-build").write_text("#!/bin/sh\n")
    commit(repository)
    caches = repository.parent / "caches"
    caches.mkdir()
    words = [repository, podman.tag("build"), "--engine", "podman", "--builder", builder]
    env = podman.env | {"TMPDIR": str(caches)}
    cli("build", *words, env=env, check=True)
    for folder in caches.iterdir():
        shutil.rmtree(folder)
    git(repository, "commit", "-q", "--allow-empty", "-m", "y")
    said = cli("build", *words, env=env)
    assert said.rc == 1
    assert (
        "what the pre-build hook made is no longer in the cache\n next: build with --no-cache" in said.stderr
    )
    cli("build", *words, "--no-cache", env=env, check=True)


@pytest.fixture
def store() -> Iterator[Path]:
    """A folder with a name that is short enough for podman."""
    with tempfile.TemporaryDirectory(prefix="ipb-") as name:
        yield Path(name)


def test_an_image_that_was_half_written_is_removed(podman: Engine, small: Path, store: Path) -> None:
    # In a store of its own: with such an image podman lists none.
    program = store / "podman"
    options = f"--root {store}/store --runroot {store}/run --storage-driver vfs"
    program.write_text(f'#!/bin/sh\nexec {podman.program} {options} "$@"\n')
    program.chmod(0o755)
    engine = Engine("podman", str(program), podman.env)
    image = engine("build", "--quiet", "--file", small / "Containerfile", small).stdout.strip()
    [folder] = (store / "store/vfs-images").glob(f"{image}*")
    (folder / "manifest").unlink()
    assert engine("images", check=False).rc
    engines.Podman(str(program)).mend()
    engine("images", "--all")  # it lists them again
    assert not engine.has(image)


def test_a_builder_that_is_none(cli: Cli, stand: Stand, repository: Path, tmp_path: Path) -> None:
    context = small_builder.write(tmp_path / "context", label="some.other")
    none = stand.engine.build((context / "Containerfile").read_text(), context, "none")
    image = f"{stand.prefix}-i"
    said = build_as(cli, stand, repository, image, "--builder", none)
    assert said.rc == 1
    assert f"is no builder image: it has no label {LABEL}" in said.stderr
    said = build_as(cli, stand, repository, image, "--builder", f"{none}-gone")
    assert said.rc == 69
    assert f"has no image {none}-gone\n" in said.stderr
    assert "make images" in said.stderr
    said = build(cli, stand, repository, "i", "--platform", "linux/s390x")
    assert said.rc == 1
    assert "and linux/s390x is asked for" in said.stderr
    assert image not in stand.names()


def test_s2i_itself(cli: Cli, docker: Engine, small: Path, repository: Path, tmp_path: Path) -> None:
    if shutil.which("s2i") is None:
        pytest.skip("s2i is not on PATH; it is in no package registry")
    secret = f"secret{uuid.uuid4().hex}"
    builder = docker.build((small / "Containerfile").read_text(), small, "builder")
    image = docker.tag("build")
    words = [
        "--engine",
        "s2i",
        "--builder",
        builder,
        "--index-url",
        f"https://me:{secret}@index.example/simple",
    ]
    made = cli("build", repository, image, *words, "--json", env=docker.env, check=True).json
    assert made["engine"] == "s2i"
    assert made["layers"] == ["dependencies", "source"]
    said = docker.run(image, "cat", "/opt/app-root/everything").stdout
    assert f"OPENSHIFT_BUILD_COMMIT={git(repository, 'rev-parse', 'HEAD')}" in said
    assert docker.inspect(image)["Config"]["Cmd"] == ["/usr/libexec/s2i/run"]
    # What is installed lies in a layer of its own, which the next build takes again.
    before = docker.inspect(image)["RootFS"]["Layers"]
    notebook(repository / "a.ipynb", "2")
    commit(repository)
    cli("build", repository, image, *words, env=docker.env, check=True)
    after = docker.inspect(image)["RootFS"]["Layers"]
    assert len(after) == len(docker.inspect(builder)["RootFS"]["Layers"]) + 2
    assert after[:-1] == before[:-1]
    assert after != before
    docker("save", "-o", str(tmp_path / "image.tar"), image)
    assert secret.encode() not in b"".join(unpacked(tmp_path / "image.tar"))
    refused = cli("build", repository, image, *words, "--image-label", "a=b", env=docker.env)
    assert refused.rc == 2


# -- registries -----------------------------------------------------------------------------------


def blobs(registry: Registry, name: str, tag: str) -> dict[str, int]:
    """Digest -> size of all that an image in a registry consists of."""
    kinds = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    )
    url = f"http://{registry.address}/v2/{name.partition('/')[2]}/manifests/{tag}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ", ".join(kinds)})) as answer:
        found = json.load(answer)
    return {one["digest"]: one["size"] for one in (found["config"], *found["layers"])}


def test_only_the_notebooks_are_pushed_again(
    cli: Cli, stand: Stand, repository: Path, registry: Registry
) -> None:
    name = registry.name("notebooks")
    words = ["--builder", stand.builder, "--push"]
    said = build_as(cli, stand, repository, f"{name}:1", *words, "--json", check=True)
    assert said.json["pushed"] is True
    assert blobs(registry, name, said.json["digest"]) == blobs(registry, name, "1")
    notebook(repository / "a.ipynb", "2")
    commit(repository)
    build_as(cli, stand, repository, f"{name}:2", *words, check=True)
    before, after = (blobs(registry, name, tag) for tag in "12")
    assert sum(before.values()) > 1_000_000
    size = sum(path.stat().st_size for path in repository.glob("*.*"))
    assert sum(after[digest] for digest in after.keys() - before.keys()) < size + 200_000
    assert len(after.keys() - before.keys()) == 2  # the configuration and a layer
    stand.engine("rmi", "--force", f"{name}:1", f"{name}:2")
    stand.engine("pull", *([] if stand.name == "docker" else ["--tls-verify=false"]), f"{name}:2")
    assert "a.ipynb" in stand.inside(f"{name}:2", "ls", "/opt/app-root/src")
    stand.engine("rmi", "--force", f"{name}:2")


def test_a_registry_that_is_not_there(cli: Cli, stand: Stand, repository: Path) -> None:
    name = f"127.0.0.1:9/{uuid.uuid4().hex[:8]}/notebooks"
    said = build_as(cli, stand, repository, name, "--builder", stand.builder, "--push")
    assert said.rc == 69
    assert f"{name}:latest cannot be pushed" in said.stderr
    assert f"the image is in {stand.name} all the same" in said.stderr
    stand.engine("rmi", "--force", name)
    said = build_as(cli, stand, repository, name, "--builder", "127.0.0.1:9/no/builder")
    assert said.rc == 69
    assert "127.0.0.1:9/no/builder:latest cannot be fetched" in said.stderr
