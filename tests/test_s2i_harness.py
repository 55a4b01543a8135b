"""The harness against the real s2i, with a builder whose scripts are three lines each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import Engine
from tests.images import into
from tests.s2i_harness import S2I, Harness, Program, config_of, differences, files_of, real_s2i
from tests.workbench import git

CONTAINERFILE = """
ARG BASE
FROM $BASE
COPY --chmod=755 assemble run usage save-artifacts /usr/libexec/s2i/
RUN mkdir -p /opt/app-root/src && chown -R 1001:0 /opt/app-root && chmod -R g+rwX /opt/app-root
LABEL io.openshift.s2i.scripts-url=image:///usr/libexec/s2i io.k8s.description="a small one"
ENV HOME=/opt/app-root
WORKDIR /opt/app-root/src
USER 1001
ENTRYPOINT ["tini", "--"]
"""
SCRIPTS = {
    "assemble": """#!/bin/sh -e
echo "assembling as $(id -u) $GREETING"; test ! -e /tmp/src/fail || { echo "no good" >&2; exit 7; }
cp -R /tmp/src/. /opt/app-root/src
if [ -d /tmp/artifacts ]; then echo restored $(ls /tmp/artifacts); cp -R /tmp/artifacts /opt/app-root/got; fi
ls /sys/class/net > /opt/app-root/nets
mkdir -p /opt/app-root/kept; echo made > /opt/app-root/kept/file; ln -sf file /opt/app-root/kept/link
ln -sf ../../../tmp /opt/app-root/kept/outside; ln -sf /etc/passwd /opt/app-root/kept/absolute; ln -f /opt/app-root/kept/file /opt/app-root/kept/hard
""",
    "run": "#!/bin/sh\nexec echo running\n",
    "usage": "#!/bin/sh\necho a builder of three lines\n",
    "save-artifacts": "#!/bin/sh\ncd /opt/app-root && tar cf - kept\n",
}


@pytest.fixture(scope="module")
def small(podman: Engine, docker: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small builder image in docker."""
    folder = tmp_path_factory.mktemp("small")
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    base = into(podman, docker, base_image)
    return docker.build(CONTAINERFILE, folder, "small", "--build-arg", f"BASE={base}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with what may go wrong on its way."""
    root = tmp_path / "repository"
    (root / "sub" / ".s2i").mkdir(parents=True)
    (root / ".s2i").mkdir()
    (root / ".s2i" / "environment").write_text("# said\nGREETING=hello there\nEMPTY=\nPATHS=a=b\nnothing\n")
    (root / "sub" / ".s2i" / "environment").write_text("GREETING=from below\n")
    (root / "näme with space").write_text("x")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("tool")
    (root / "broken").symlink_to("nowhere")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "first, with a long message " + "x" * 90)
    git(root, "tag", "v1")
    (root / "later").write_text("y")
    git(root, "add", ".")
    git(root, "commit", "-m", "second")
    (root / "uncommitted").write_text("z")
    return root


@pytest.fixture
def folder(repository: Path) -> Path:
    """The same without git."""
    plain = repository.with_name("plain")
    repository.rename(plain)
    for path in sorted((plain / ".git").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (plain / ".git").rmdir()
    return plain


def test_a_repository(s2i: S2I, docker: Engine, small: str, repository: Path) -> None:
    tag = docker.tag()
    built = s2i.build(docker, repository, small, tag)
    assert "assembling as 1001 hello there" in built.log
    config = config_of(docker, tag)
    assert config["Cmd"] == ["/usr/libexec/s2i/run"]
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["User"] == "1001"
    assert "GREETING=hello there" in config["Env"]
    assert config["Labels"]["io.openshift.s2i.build.commit.id"] == git(repository, "rev-parse", "HEAD")
    assert docker.run(tag).stdout == "running\n"
    files = files_of(docker, tag, "/opt/app-root/src")
    assert "/opt/app-root/src/later" in files
    assert not [path for path in files if ".git" in path or "uncommitted" in path]


def test_an_incremental_build(s2i: S2I, docker: Engine, small: str, repository: Path) -> None:
    tag = docker.tag()
    assert "restored" not in s2i.build(docker, repository, small, tag, incremental=True).log
    second = s2i.build(docker, repository, small, tag, incremental=True, network="none")
    assert "restored kept" in second.log
    files = files_of(docker, tag, "/opt/app-root")
    assert "/opt/app-root/got/kept/file" in files
    # What s2i does to some of the artifacts on their way.
    assert "/opt/app-root/got/kept/absolute" in files
    assert "/opt/app-root/got/kept/outside" not in files, "a relative link that leads out of the artifacts"
    sizes = docker.run(tag, "sh", "-c", "cat /opt/app-root/got/kept/file /opt/app-root/got/kept/hard").stdout
    assert sizes == "made\n", "the second name of a file is an empty file"
    assert docker.run(tag, "cat", "/opt/app-root/nets").stdout == "lo\n"


def test_artifacts_that_are_no_tar_make_a_clean_build(
    s2i: S2I, docker: Engine, small: str, repository: Path, tmp_path: Path
) -> None:
    noisy = docker.build(
        f"FROM {small}\nUSER 0\nRUN sed -i '2i echo here it comes' /usr/libexec/s2i/save-artifacts\nUSER 1001\n",
        tmp_path,
    )
    tag = docker.tag()
    s2i.build(docker, repository, noisy, tag)
    second = s2i.build(docker, repository, noisy, tag, incremental=True)
    assert "restored" not in second.log
    assert "Clean build will be performed because of error" in second.log


def test_a_failure_shows_the_log_and_makes_no_image(
    s2i: S2I, docker: Engine, small: str, folder: Path
) -> None:
    (folder / "fail").touch()
    tag = docker.tag()
    built = s2i.build(docker, folder, small, tag, check=False)
    assert built.rc == 1
    assert "no good" in built.log
    assert not docker.has(tag)


def test_a_builder_without_the_label(
    s2i: S2I, docker: Engine, small: str, folder: Path, tmp_path: Path
) -> None:
    plain = docker.build(f'FROM {small}\nLABEL io.openshift.s2i.scripts-url=""\n', tmp_path)
    built = s2i.build(docker, folder, plain, docker.tag(), check=False)
    assert built.rc
    assert "io.openshift.s2i.scripts-url" in built.log


def test_usage(s2i: S2I, docker: Engine, small: str) -> None:
    built = s2i.usage(docker, small)
    assert built.rc == 0
    assert "a builder of three lines" in built.log


def test_as_dockerfile(s2i: S2I, docker: Engine, small: str, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    s2i.as_dockerfile(repository, small, out, env={"SAID": 'a "b" $c'})
    tag = docker.tag()
    docker("build", "--quiet", "--tag", tag, out)
    config = config_of(docker, tag)
    assert config["Cmd"] == ["/bin/sh", "-c", "/usr/libexec/s2i/run"]
    assert 'SAID=a "b" $c' in config["Env"]
    assert "GREETING=hello there" in config["Env"]
    assert "/opt/app-root/src/later" in files_of(docker, tag, "/opt/app-root/src")


@pytest.mark.parametrize(
    ("options", "own", "git_source"),
    [
        ({}, False, True),
        ({"env": {"GREETING": "from outside", "MORE": "a b=c"}}, False, True),
        ({"ref": "v1"}, False, True),
        ({"context_dir": "sub"}, False, True),
        ({"incremental": True}, False, True),
        ({}, True, True),
        ({"incremental": True}, True, True),
        ({}, False, False),
        ({"context_dir": "sub"}, False, False),
    ],
)
def test_both_make_the_same_image(
    docker: Engine, small: str, repository: Path, request: pytest.FixtureRequest, options, own, git_source
) -> None:
    path = real_s2i()
    if path is None:
        pytest.skip("s2i is not on PATH and not in $S2I: there is nothing to compare the harness with")
    if own:
        scripts = repository / ".s2i" / "bin"
        scripts.mkdir()
        (scripts / "assemble").write_text("#!/bin/sh\necho own; exec /usr/libexec/s2i/assemble\n")
        (scripts / "run").write_text("#!/bin/sh\necho own run\n")
        (scripts / "save-artifacts").write_text("#!/bin/sh\ncd /opt/app-root/kept && tar cf - file\n")
        git(repository, "add", ".")
        git(repository, "commit", "-m", "own scripts")
    source = repository if git_source else request.getfixturevalue("folder")
    tags = []
    for one in (Harness(), Program(path)):
        tags.append(docker.tag())
        for _ in range(2 if options.get("incremental") else 1):
            one.build(docker, source, small, tags[-1], **options)
    assert differences(docker, *tags, below=("/opt/app-root", "/usr/libexec", "/tmp")) == []
    assert len(files_of(docker, tags[0], "/opt/app-root")) > 8
