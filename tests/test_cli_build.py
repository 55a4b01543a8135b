"""`build` as people and programs see it, where no engine is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli

REPOS = Path(__file__).parent / "repos"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Notebooks"], "is no name of an image"),
        (["a:b:c"], "is no name of an image"),
        ([f"a@sha256:{'0' * 64}"], "cannot be made under a digest"),
        (["a", "--push"], "names no registry to push to"),
        (["a", "--platform", "vax"], "is no platform"),
        (["a", "--image-label", "nothing"], "is no label"),
        (["a", "--builder", "No Name"], "the builder's name"),
        (["a", "--engine", "kaniko"], "kaniko"),
        (["a", "--ref=--upload-pack=id"], "ref"),
        (["a", "--engine", "s2i", "--with", "six"], "s2i knows nothing of --with"),
        ([], "IMAGE"),
    ],
)
def test_a_command_line_that_cannot_be_meant(cli: Cli, words: list[str], said: str) -> None:
    found = cli("build", REPOS / "config", *words)
    assert found.rc == 2, found.stderr
    assert said in found.stderr
    assert not found.stdout


def test_no_engine_at_all(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    env = {"PATH": str(tmp_path / "bin")}
    said = cli("build", REPOS / "config", "a", env=env)
    assert said.rc == 69
    assert "neither podman nor buildah nor docker is on PATH" in said.stderr
    assert "next: install podman" in said.stderr
    for engine in ("podman", "docker", "s2i"):
        said = cli("build", REPOS / "config", "a", "--engine", engine, env=env)
        assert said.rc == 69
        assert f"{engine} is" in said.stderr


def test_a_docker_without_buildkit(cli: Cli, tmp_path: Path) -> None:
    """Newer clients without their plugin, beside an older one, as a machine may have them."""
    for folder, version in (("new", "28.1.1"), ("old", "20.10.24")):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "docker"
        program.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"print('{version}') if sys.argv[1] == 'version' else sys.exit('Cannot connect to the Docker daemon')\n"
        )
        program.chmod(0o755)
    said = cli("build", REPOS / "config", "a", "--engine", "docker", env={"PATH": str(tmp_path / "new")})
    assert said.rc == 69
    assert "has no BuildKit: its plugin buildx is missing" in said.stderr
    both = os.pathsep.join(str(tmp_path / name) for name in ("new", "old"))
    said = cli("build", REPOS / "config", "a", "--engine", "docker", env={"PATH": both})
    assert said.rc == 69
    assert "docker does not work" in said.stderr
    assert "next: start it" in said.stderr


def test_a_repository_that_is_not_there_costs_no_engine(cli: Cli) -> None:
    assert cli("build", "/no/such/folder", "a", env={"PATH": "/nowhere"}).rc == 3


def test_credentials_of_a_source_are_not_shown(cli: Cli) -> None:
    said = cli("build", "https://me:hunter2@host.example/nb.git", "a", "--json", env={"PATH": "/nowhere"})
    assert said.rc == 69
    assert "hunter2" not in said.stdout + said.stderr
