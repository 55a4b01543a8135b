"""The builder image as S2I uses it: through the harness, and through the real program where it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests import containers
from tests.conftest import CHECKOUT, require
from tests.containers import LABEL, LIMITS
from tests.engine import Container, Engine
from tests.engines import Images
from tests.images import into
from tests.s2i_harness import S2I, Harness, Program, as_dockerfile, config_of, differences, files_of, real_s2i
from tests.workbench import git, notebook, outputs, until

PROJECT = """\
[build-system]
requires = ["setuptools>=61"]
[project]
name = "helpers"
version = "1.0"
"""
WEB_LIMITS = (*("--user", "1000770000:0", "--read-only", "--tmpfs", "/tmp"), "--cap-drop=ALL")
STORE = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def plain(podman: Engine, docker: Engine, builder_image: Images) -> str:
    """The builder in docker."""
    return into(podman, docker, builder_image.builder)


@pytest.fixture(scope="module")
def site(docker: Engine, plain: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The builder as it is used behind a company's proxy: with this machine's authorities."""
    folder = tmp_path_factory.mktemp("site")
    store = os.environ.get("SSL_CERT_FILE")
    if not store:
        return plain
    (folder / "ca.crt").write_bytes(Path(store).read_bytes())
    return docker.build(f"FROM {plain}\nUSER 0\nCOPY ca.crt {STORE}\nUSER 1001\n", folder, "site")


def commit(root: Path, message: str = "a commit") -> str:
    git(root, "add", ".")
    git(root, "commit", "-qm", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a package from the index and one of its own; `one`, then `two`, which has another notebook."""
    root = tmp_path_factory.mktemp("repository") / "notebooks"
    notebook(root / "index.ipynb", "import six, helpers")
    (root / "requirements.txt").write_text("six==1.16.0\n./helpers\n")
    (root / "helpers").mkdir()
    (root / "helpers" / "pyproject.toml").write_text(PROJECT)
    (root / "helpers" / "helpers.py").write_text("answer = 41\n")
    (root / "run.sh").write_text("#!/bin/sh\necho it runs\n")
    (root / "run.sh").chmod(0o755)
    notebook(root / "below" / "lesson.ipynb", "1")
    git(root, "init", "-q")
    commit(root)
    git(root, "tag", "one")
    notebook(root / "index.ipynb", "import six, helpers", "helpers.answer")
    notebook(root / "below" / "lesson.ipynb", "2")
    commit(root)
    git(root, "tag", "two")
    return root


@pytest.fixture(scope="module")
def clean(docker: Engine, site: str, repository: Path):
    """Makes an image of `one`, once with each s2i; the log and the image's name."""
    made: dict[str, tuple[str, str]] = {}

    def build(s2i: S2I) -> tuple[str, str]:
        name = type(s2i).__name__
        if name not in made:
            tag = docker.tag(name.lower())
            made[name] = s2i.build(docker, repository, site, tag, ref="one", incremental=True).log, tag
        return made[name]

    return build


def told(docker: Engine, image: str, file: str) -> str:
    return docker.run(image, "cat", file, options=("--network", "none")).stdout


def get(docker: Engine, made: Container, path: str) -> tuple[int, str]:
    """Status and text of a page, as somebody outside gets it who has not signed in."""
    address = docker("port", made.id, "8080/tcp").stdout.splitlines()[0]
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return answer.status, answer.read().decode(errors="replace")


def test_a_clean_build(s2i: S2I, docker: Engine, clean, repository: Path) -> None:
    log, tag = clean(s2i)
    assert "put back" not in log
    code = "import six, helpers; print(six.__version__, helpers.answer)"
    said = docker.run(tag, "python", "-c", code, options=(*WEB_LIMITS, "--network", "none"))
    assert said.stdout.strip() == "1.16.0 41"
    below = "/opt/app-root/src"
    names = {path.removeprefix(f"{below}/") for path in files_of(docker, tag, below)} - {below}
    # The repository, and nothing that came about while its package was built.
    assert names == set(git(repository, "ls-tree", "-r", "-t", "--name-only", "one").splitlines())
    lock = told(docker, tag, "/opt/app-root/etc/requirements.lock")
    assert re.search(r"(?m)^six==1\.16\.0 .*--hash=sha256:|^six==1\.16\.0 \\", lock)
    assert json.loads(told(docker, tag, "/opt/app-root/etc/sbom.cdx.json"))["bomFormat"] == "CycloneDX"
    facts = json.loads(told(docker, tag, "/opt/app-root/etc/image.json"))
    assert facts["notebooks"] == ["below/lesson.ipynb", "index.ipynb"]
    # No cache, no upload, no second copy. S2I's own folder for scripts is there, and empty.
    left = docker.run(tag, "sh", "-c", "cd /tmp; find . -mindepth 1; cd /opt/app-root; ls -A; ls -A state")
    known = ["./scripts", "bin", "etc", "lib", "lib64", "pyvenv.cfg", "share", "src"]
    assert left.stdout.split() == [*known, "state"]
    assert docker.run(tag, "find", "/opt/app-root", "-name", "uv_cache.json").stdout == ""


def test_whoever_is_of_the_group_can_change_all_of_it(s2i: S2I, docker: Engine, clean) -> None:
    wrong = []
    for path, what in files_of(docker, clean(s2i)[1], "/opt/app-root").items():
        kind, owner, mode, *_ = what.split(" ")
        bits = int(mode, 8)
        if owner.partition(":")[2] != "0" or (kind != "2" and bits >> 6 & 7 != bits >> 3 & 7) or bits & 2:
            wrong.append(f"{path} {what}" if kind != "2" else "")
    assert [one for one in wrong if one] == []


def test_the_next_build_installs_nothing(
    s2i: S2I, docker: Engine, site: str, repository: Path, clean
) -> None:
    first = clean(s2i)[1]
    tag = docker.tag()
    docker("tag", first, tag)
    built = s2i.build(docker, repository, site, tag, ref="two", incremental=True, network="none")
    assert "nothing to install: 2 packages of the previous image put back" in built.log
    assert "Clean build will be performed" not in built.log
    before, after = (files_of(docker, image, "/opt/app-root") for image in (first, tag))
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    src = "/opt/app-root/src"
    assert changed == {f"{src}/index.ipynb", f"{src}/below/lesson.ipynb"}
    # Not installed again: the very file, with the time at which it was first.
    where = next(path for path in after if path.endswith("/site-packages/six.py"))
    one, two = (docker.run(image, "stat", "-c", "%Y", where).stdout for image in (first, tag))
    assert one == two
    # And once more from what was put back.
    third = s2i.build(docker, repository, site, tag, ref="one", incremental=True, network="none")
    assert "nothing to install: 2 packages of the previous image put back" in third.log
    assert differences(docker, first, tag) == []


def test_other_requirements_are_the_difference(
    s2i: S2I, docker: Engine, site: str, repository: Path, clean, tmp_path: Path
) -> None:
    tag = docker.tag()
    docker("tag", clean(s2i)[1], tag)
    other = tmp_path / "notebooks"
    git(tmp_path, "clone", "-q", str(repository), str(other))
    (other / "requirements.txt").write_text("six\n")
    commit(other)
    built = s2i.build(docker, other, site, tag, incremental=True)
    assert "1 package of the previous image put back" in built.log
    code = "import importlib.metadata as m; print(m.version('six')); m.version('helpers')"
    said = docker.run(tag, "python", "-c", code, check=False)
    assert said.stdout.strip() == "1.16.0"
    assert "PackageNotFoundError" in said.stderr


def test_it_serves_as_any_user(s2i: S2I, docker: Engine, clean) -> None:
    made = docker.start(clean(s2i)[1], options=(*WEB_LIMITS, "--publish", "127.0.0.1::8080"))
    probe = ("ipython-builder", "s2i", "probe")
    until(lambda: made.exec(*probe, check=False).rc == 0, "it is ready", 90)
    status, page = get(docker, made, "/")
    assert status == 200
    assert "password" in page.lower()
    status, page = get(docker, made, "/api")
    assert status == 200
    assert "version" in json.loads(page)
    assert made.exec("id", "-u").stdout.strip() == "1000770000"
    docker("stop", "--time", "20", made.id)
    assert made.inspect()["State"]["ExitCode"] == 0
    made.rm()


def test_both_make_the_same_image(docker: Engine, clean) -> None:
    path = real_s2i()
    if path is None:
        pytest.skip("s2i is not on PATH and not in $S2I: there is nothing to compare the harness with")
    tags = [clean(one)[1] for one in (Harness(), Program(path))]
    assert differences(docker, *tags, below=("/opt/app-root", "/usr/libexec", "/tmp", "/run")) == []


def test_a_folder_and_a_context_directory(
    s2i: S2I, docker: Engine, plain: str, repository: Path, tmp_path: Path
) -> None:
    tag = docker.tag()
    below = {"ref": "one", "context_dir": "below"}
    built = s2i.build(docker, repository, plain, tag, network="none", **below)
    assert "nothing to install" in built.log
    assert [path for path in files_of(docker, tag, "/opt/app-root/src") if path.endswith(".ipynb")] == [
        "/opt/app-root/src/lesson.ipynb"
    ]
    assert '"1"' in told(docker, tag, "/opt/app-root/src/lesson.ipynb")
    config = config_of(docker, tag)
    assert config["Cmd"] == ["/usr/libexec/s2i/run"]
    assert config["Entrypoint"][0] == "tini"
    assert config["User"] == "1001"
    folder = tmp_path / "folder"
    notebook(folder / "only.ipynb", "3")
    s2i.build(docker, folder, plain, tag, network="none")
    assert list(files_of(docker, tag, "/opt/app-root/src")) == [
        "/opt/app-root/src",
        "/opt/app-root/src/only.ipynb",
    ]


def test_usage(s2i: S2I, docker: Engine, plain: str) -> None:
    built = s2i.usage(docker, plain)
    assert built.rc == 0
    assert "IPYTHON_CONTAINER_TYPE" in built.log
    assert "s2i build" in built.log


BAD = {
    "nowhere": ({"requirements.txt": "no-such-package-of-anybody==1\n"}, "no-such-package-of-anybody", True),
    "conflict": ({"requirements.txt": "six==1.16.0\nsix==1.15.0\n"}, "six", True),
    "syntax": ({"requirements.txt": "six=1.16\n"}, "requirements.txt", False),
    "python": (
        {"pyproject.toml": '[project]\nname="a"\nversion="1"\nrequires-python="==3.9.*"\n'},
        "3.9",
        False,
    ),
    "hook": ({".ipython-builder/pre-build": "#!/bin/sh\necho what it says\nexit 4\n"}, "ended with 4", False),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_stands_last_in_the_log(
    s2i: S2I, docker: Engine, site: str, case: str, tmp_path: Path
) -> None:
    files, word, network = BAD[case]
    for name, text in files.items():
        path = tmp_path / "bad" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tag = docker.tag()
    built = s2i.build(docker, tmp_path / "bad", site, tag, check=False, network=None if network else "none")
    assert built.rc == 1
    assert not docker.has(tag)
    lines = [re.sub(r"^\s*\S*E?\d{4} \S+ +\S+\] ", "", line) for line in built.log.splitlines()]
    errors = [number for number, line in enumerate(lines) if line.lstrip().startswith("error: ")]
    assert errors, built.log
    last = lines[errors[-1] :]
    assert word in "\n".join(last)
    assert any(line.lstrip().startswith("next: ") for line in last), built.log
    assert "Traceback" not in built.log


# -- without an S2I that builds ---------------------------------------------------------------------


def buildah(podman: Engine, folder: Path, tag: str, *options: str) -> str:
    words = [require("buildah"), "bud", "--quiet", "--layers=false", "--format", "docker", "--tag", tag]
    done = subprocess.run(
        [*words, *options, folder], env=podman.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return tag


def authorities() -> tuple[str, ...]:
    """How a build by buildah gets this machine's authorities: as a mount, in no layer."""
    store = os.environ.get("SSL_CERT_FILE")
    return ("--volume", f"{Path(store).resolve()}:{STORE}:ro") if store else ()


def test_a_generated_dockerfile(
    s2i: S2I, podman: Engine, builder_image: Images, repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    s2i.as_dockerfile(repository, builder_image.builder, out)
    tag = buildah(podman, out, podman.tag(), *authorities())
    # With a shell in front, as builds in a cluster make it.
    assert podman.inspect(tag)["Config"]["Cmd"] == ["/bin/sh", "-c", "/usr/libexec/s2i/run"]
    made = podman.start(tag, options=(*LIMITS, "--network", "none"))
    until(lambda: containers.probe(made) == 0, "it is ready", 90)
    listed = made.exec("ls", "-A", "/opt/app-root/src").stdout.split()
    assert sorted(listed) == ["below", "helpers", "index.ipynb", "requirements.txt", "run.sh"]
    assert made.exec("python", "-c", "import helpers; print(helpers.answer)").stdout.strip() == "41"
    podman("stop", "--time", "20", made.id)
    assert made.inspect()["State"]["ExitCode"] == 0
    made.rm()


def assembled(podman: Engine, source: str | Path, builder: str, folder: Path, *options: str) -> str:
    """An image of a repository in podman, by the harness."""
    folder.mkdir()
    as_dockerfile(source, builder, folder)
    return buildah(podman, folder, podman.tag(), *options)


def test_an_image_of_ones_own_on_top(podman: Engine, builder_image: Images, tmp_path: Path) -> None:
    notebook(tmp_path / "own.ipynb", "import tinyone", "tinyone.answer")
    (tmp_path / "tinyone.py").write_text("answer = 41\n")
    text = f"""FROM {builder_image.builder}
USER 0
RUN apt-get update -q && apt-get install -qy --no-install-recommends bc && rm -rf /var/lib/apt/lists/*
USER 1001
COPY --chown=1001:0 own.ipynb tinyone.py /opt/app-root/src/
"""
    image = podman.build(text, tmp_path, "own", "--format", "docker")
    made = podman.start(image, options=(*LIMITS, "--network", "none"))
    until(lambda: containers.probe(made) == 0, "it is ready", 90)
    assert made.exec("sh", "-c", "echo 40+1 | bc").stdout.strip() == "41"
    made.exec("ipython-builder", "run", "notebook", "own.ipynb", "-o", "/tmp/done.ipynb")
    (tmp_path / "done.ipynb").write_text(made.exec("cat", "/tmp/done.ipynb").stdout)
    assert outputs(tmp_path / "done.ipynb") == ["41"]
    made.rm()


def run_in(image: str, podman: Engine, folder: Path, name: str, *options: str) -> list[str]:
    """The outputs of a notebook that ran in an image's viewer, with three engines of the same image."""
    with containers.cluster(podman, image) as made:
        made.add("controller", "controller")
        made.add("engines", "engine", IPYTHON_ENGINES="3")
        made.add("viewer", "viewer")
        made.ready("controller", "engines", "viewer")
        viewer = made.parts["viewer"]
        words = ("ipython-builder", "run", LABEL, name, "-o", "/tmp/done.ipynb", "--timeout", "200")
        said = viewer.exec(*words, *options, check=False)
        assert said.rc == 0, said.stderr
        (folder / "done.ipynb").write_text(viewer.exec("cat", "/tmp/done.ipynb").stdout)
    return outputs(folder / "done.ipynb")


def test_lectures(podman: Engine, builder_image: Images, shared_repos: Path, tmp_path: Path) -> None:
    bundle = shared_repos / "scientific-python-lectures.bundle"
    if not bundle.is_file():
        pytest.skip(f"{bundle} is not there")
    # Nothing is installed, so nobody is asked.
    image = assembled(podman, bundle, builder_image.scipy, tmp_path / "out", "--network", "none")
    assert "[0, 1, 2]" in run_in(image, podman, tmp_path, "Lecture-6B-HPC.ipynb", "--cells", "1-40")


def test_an_example(podman: Engine, builder_image: Images, tmp_path: Path) -> None:
    example = CHECKOUT / "examples" / "image-pipeline"
    image = assembled(podman, example, builder_image.builder, tmp_path / "out", *authorities())
    run_in(image, podman, tmp_path, "counting-cells.ipynb")
    cells = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    assert any("image/png" in o.get("data", {}) for cell in cells for o in cell.get("outputs", []))
