"""`check` as people and programs see it: the real command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workbench import notebook

REPOS = Path(__file__).parent / "repos"


def _tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_the_lectures_name_what_they_lack(cli: Any, shared_repos: Path) -> None:
    bundle = shared_repos / "scientific-python-lectures.bundle"
    said = cli("check", bundle, "--json", check=True).json
    assert said["file"] is None
    assert len(said["commit"]) == 40
    modules = {one["module"] for one in said["missing"]}
    assert modules >= {"numpy", "scipy", "matplotlib", "sympy"}
    assert set(said["with"]) >= {"numpy", "scipy", "matplotlib", "sympy"}
    assert "Lecture-6B-HPC.ipynb" in said["notebooks"]

    text = cli("check", bundle, "--with", "numpy", "--with", "scipy", check=True).stdout
    assert "no file says" not in text.partition("installs")[2]
    assert "Next: ipython-builder up" in text
    suggested = text.partition("Next: ")[2]
    assert "--with numpy --with scipy " in suggested
    assert "--with sympy" in suggested


def test_nothing_is_changed_and_nothing_left(cli: Any, tmp_path: Path) -> None:
    before = _tree(REPOS / "uv-lock")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    said = cli("check", REPOS / "uv-lock", env={"TMPDIR": str(temporary)}, check=True)
    assert "uv.lock, a lock" in said.stdout
    assert "six==1.17.0" in said.stdout
    assert "--hash" not in said.stdout
    assert "requirements.txt: not obeyed, because uv.lock speaks" in said.stdout
    assert _tree(REPOS / "uv-lock") == before
    assert not list(temporary.iterdir())


def test_the_object_for_programs(cli: Any) -> None:
    said = cli("check", REPOS / "binder", "--json", check=True).json
    assert said["file"] == "binder/requirements.txt"
    assert said["kind"] == "requirements"
    assert said["python"]["wanted"] == "==3.11.*"
    assert said["python"]["wanted_by"] == "binder/runtime.txt"
    assert said["system_packages"] == ["graphviz", "libgl1", "ffmpeg"]
    assert {"file": "binder/start", "message": said["notices"][3]["message"]} == said["notices"][3]
    assert said["pins"] is None


@pytest.mark.parametrize("name", ["requirements-syntax", "conda-only-conda", "requirements-variable"])
def test_a_faulty_repository(cli: Any, name: str) -> None:
    said = cli("check", REPOS / "bad" / name)
    assert said.rc == 3
    assert said.stdout == ""
    for line in (REPOS / "bad" / f"{name}.expected").read_text().splitlines():
        assert line in said.stderr
    assert "next:" in said.stderr
    error = cli("check", REPOS / "bad" / name, "--json")
    assert error.rc == 3
    assert error.json["error"]["exit_code"] == 3


def test_a_python_that_is_not_there_is_said_after_all_else(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "runtime.txt").write_text("python-3.77\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    said = cli("check", tmp_path)
    assert said.rc == 3
    assert "installs   six" in said.stdout
    assert "runtime.txt asks for Python ==3.77.*" in said.stderr


@pytest.mark.parametrize("words", [["--with", "numpy=1"], ["--ref=--upload-pack=id"], ["--python", "3.77"]])
def test_a_command_line_that_cannot_be_meant(cli: Any, words: list[str]) -> None:
    said = cli("check", REPOS / "bare", *words)
    assert said.rc == 2
    assert not said.stdout


def test_a_clone_and_a_folder_in_it(cli: Any, tmp_path: Path) -> None:
    root = tmp_path / "origin"
    (root / "course").mkdir(parents=True)
    (root / "course" / "requirements.txt").write_text("six\n")
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True, env=clean)
    said = cli("check", root.as_uri(), "--context-dir", "course", "--json", check=True).json
    assert said["requirements"] == ["six"]
    assert said["commit"]


def test_what_engines_import_beforehand(cli: Any, tmp_path: Path) -> None:
    notebook(tmp_path / "course" / "one.ipynb", "import scipy.stats, os\nfrom matplotlib import pyplot")
    said = cli("check", tmp_path, "--context-dir", "course", check=True).stdout
    assert "preloads   scipy.stats\n           matplotlib\n" in said
    (tmp_path / ".ipython-builder.toml").write_text("[pool]\npreload = ['xarray']\nexclude = ['scipy']\n")
    said = cli("check", tmp_path, "--context-dir", "course", "--json", check=True).json
    assert (said["preload"], said["fork"]) == (["matplotlib", "xarray"], True)
    (tmp_path / ".ipython-builder.toml").write_text("[pool]\nfork = false\n")
    assert "preloads   nothing: engines are not forked" in cli("check", tmp_path, check=True).stdout
    (tmp_path / ".ipython-builder.toml").write_text("[pool]\npreload = ['course']\n")
    (tmp_path / "course" / "helpers.py").touch()
    said = cli("check", tmp_path)
    assert (said.rc, said.stdout) == (3, "")
    assert "remove course from preload" in said.stderr


def test_a_login_in_the_repository_is_not_printed(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-i https://me:hunter2@host.example/simple\nsix\n")
    for words in ([], ["--json"]):
        said = cli("check", tmp_path, *words, check=True)
        assert "hunter2" not in said.stdout + said.stderr
        assert "***@host.example" in said.stdout


@pytest.mark.slow
def test_asking_the_index(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("tabulate==0.8.10\n")
    said = cli("check", tmp_path, "--resolve", "--json", check=True)
    assert "tabulate==0.8.10" in said.json["pins"]
    assert any(pin.startswith("ipykernel==") for pin in said.json["pins"])
    assert "may be built" in said.stderr

    (tmp_path / "requirements.txt").write_text("six==1.16.0\nsix==1.17.0\n")
    said = cli("check", tmp_path, "--resolve")
    assert said.rc == 3
    assert "six" in said.stderr

    (tmp_path / "requirements.txt").write_text("six==99\n")
    assert cli("check", tmp_path, "--resolve").rc == 3
    assert cli("check", tmp_path).rc == 0
