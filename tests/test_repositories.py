"""What repositories come with, from `up` to an import on the engines; and those that are at fault."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from tests.conftest import Cli, Home
from tests.workbench import console, git, notebook

pytestmark = pytest.mark.slow

SIX = {
    "version": "1.17.0",
    "hash": "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274",
    "sdist": "ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81",
}
PYPROJECT = (
    '[project]\nname = "course"\nversion = "0.1.0"\nrequires-python = ">=3.9"\ndependencies = ["six"]\n'
)
REPOSITORIES: dict[str, dict[str, str]] = {
    "bare": {},
    "pyproject": {"pyproject.toml": PYPROJECT},
    "hashed": {"requirements.txt": "six==%(version)s --hash=sha256:%(hash)s --hash=sha256:%(sdist)s\n"},
    "environment": {
        "environment.yml": "dependencies:\n  - python>=3.9\n  - six=1.17\n  - pip:\n    - tabulate\n"
    },
    "binder": {"binder/requirements.txt": "six\n"},
}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_up(name: str, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / name
    notebook(folder / "one.ipynb", "import ipyparallel as ipp\nipp.Client()[:].apply_sync(lambda: 1)")
    for file, text in REPOSITORIES[name].items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text % SIX)
    cli("up", folder, "-n", "1", "--label", "main", check=True)
    cli("run", "main", "one.ipynb", check=True)
    if name != "bare":
        assert (
            console(cli, "main", "print(rc[0].apply_sync(lambda: __import__('six').__version__))") == "1.17.0"
        )


@pytest.mark.oldest
def test_uv_lock(cli: Cli, home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    notebook(folder / "one.ipynb", "import six")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    subprocess.run([uv.find_uv_bin(), "lock", "-q"], cwd=folder, env=home.environ, check=True)
    made = cli("up", folder, "-n", "1", "--label", "main", "--json", check=True).json
    assert console(cli, "main", "print(rc[0].apply_sync(lambda: __import__('six').__name__))") == "six"
    checked = cli("check", folder, "--json", check=True).json
    assert (checked["kind"], made["engines"]["registered"]) == ("uv.lock", 1)


@pytest.mark.parametrize(
    ("python", "ipyparallel"),
    [("3.9", "8.0.0"), ("3.11", "8.8.0"), ("3.13", "9.0.0")],
    ids=lambda value: value,
)
def test_an_older_python_and_an_older_ipyparallel(
    python: str, ipyparallel: str, cli: Cli, tmp_path: Path, python_of: Callable[[str], Path]
) -> None:
    python_of(python)
    folder = tmp_path / "old"
    notebook(folder / "one.ipynb", "import sys, ipyparallel\n(sys.version_info[:2], ipyparallel.__version__)")
    (folder / "requirements.txt").write_text(f"ipyparallel=={ipyparallel}\n")
    (folder / "runtime.txt").write_text(f"python-{python}\n")
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    cli("run", "main", "one.ipynb", check=True)
    major, minor = python.split(".")
    assert f"(({major}, {minor}), '{ipyparallel}')" in json.dumps(
        json.loads((folder / "one.ipynb").read_text())
    )
    assert console(cli, "main", "print(rc.ids, rc[:].apply_sync(lambda: 1))") == "[0, 1] [1, 1]"
    cli("scale", "main", "3", check=True)


def test_the_repositorys_own_jupyterlab_serves(cli: Cli, tmp_path: Path) -> None:
    from ipython_builder import runtime
    from ipython_builder.workspace import Workspace

    lock = runtime.viewer_lock()
    pinned = next(line for line in lock.splitlines() if line.startswith("jupyterlab=="))
    folder = tmp_path / "own"
    notebook(folder / "one.ipynb", "1")
    (folder / "requirements.txt").write_text(pinned.split()[0] + "\n")
    made = cli("up", folder, "-n", "1", "--label", "main", "--json", check=True).json
    workspace = Workspace(made["url"], made["password"])
    assert workspace.request("GET", "api/kernelspecs").ok
    page = workspace.request("GET", "lab")
    assert page.ok
    assert "JupyterLab Error" not in page.text
    assert workspace.request("GET", "lab/api/extensions").ok
    assert workspace.request("GET", "api/terminals").ok, "its server extensions are there"
    command = Path(f"/proc/{made['viewer']['pid']}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert command == str(tmp_path / "home/state/ipython-builder/clusters/main/kept/env/bin/python")
    cli("run", "main", "one.ipynb", check=True)


@pytest.mark.parametrize("cloned", [False, True], ids=["folder", "url"])
def test_a_package_of_the_repository_is_left_as_it_is(
    cloned: bool, cli: Cli, home: Home, tmp_path: Path
) -> None:
    """setuptools builds beside its sources: that would be dirt, a changed environment, and work to be kept."""
    folder = tmp_path / "lab"
    notebook(folder / "one.ipynb", "import lab")
    (folder / "pyproject.toml").write_text('[project]\nname = "lab"\nversion = "1"\n')
    (folder / "lab.py").write_text("answer = 42\n")
    (folder / "requirements.txt").write_text(".\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    words = ("up", folder.as_uri() if cloned else str(folder), "-n", "1", "--label", "main", "--json")
    first = cli(*words, check=True).json
    again = cli(*words, check=True)
    assert again.json["viewer"]["pid"] == first["viewer"]["pid"]
    assert "installing" not in again.stderr
    assert console(cli, "main", "print(rc[0].apply_sync(lambda: __import__('lab').answer))") == "42"
    cli("check", folder, "--resolve", check=True)
    dirt = git(folder, "status", "--porcelain", "--ignored").splitlines()
    assert [line for line in dirt if "__pycache__" not in line] == [], (
        "bytecode is the engines', who import it"
    )
    assert cli("down", "main", "--json", check=True).json["kept"] == {}


FAULTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "no such package": ({"requirements.txt": "there-is-no-such-package-at-all-0\n"}, ("there-is-no-such",)),
    "a conflict": ({"requirements.txt": "ipython==8.0\nipython==8.1\n"}, ("ipython==8.0", "ipython==8.1")),
    "a conflict with us": ({"requirements.txt": "tornado==4.5.3\n"}, ("tornado==4.5.3", "ipykernel")),
    "another hash": ({"requirements.txt": f"six==1.17.0 --hash=sha256:{'0' * 64}\n"}, ("six", "not the one")),
    "a syntax error": ({"requirements.txt": "numpy\n===what\n"}, ("requirements.txt:2", "===what")),
    "no such Python": ({"runtime.txt": "python-3.99\n"}, ("3.99", "runtime.txt")),
    "an old ipyparallel": ({"requirements.txt": "ipyparallel==6.3.0\n"}, ("ipyparallel==6.3.0",)),
    "conda only": ({"environment.yml": "dependencies: [r-base]\n"}, ("r-base", "environment.yml")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_repository_at_fault(name: str, cli: Cli, home: Home, tmp_path: Path) -> None:
    files, words = FAULTS[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    said = cli("up", folder, "--label", "main", "--json")
    assert said.rc == 3
    error = said.json["error"]
    for word in words:
        assert word in error["message"]
    assert error["hint"]
    assert "Traceback" not in said.stderr
    assert not (home.clusters / "main").exists(), "nothing half-made is left"


def test_a_link_out_of_the_tree(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "passwords").symlink_to("/etc/passwd")
    said = cli("up", folder)
    assert (said.rc, "passwords" in said.stderr) == (3, True)


def test_an_index_that_is_not_there(cli: Cli, own_cache: Home, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "requirements.txt").write_text("tabulate==0.9.0\n")
    env = {
        "IPYTHON_BUILDER_CACHE_DIR": str(tmp_path / "cache"),
        "IPYTHON_BUILDER_INDEX_URL": "http://user:geheim@127.0.0.1:9/simple",
    }
    said = cli("up", folder, "--label", "main", env=env)
    assert said.rc == 69
    assert "geheim" not in said.stderr
    assert "--index-url" in said.stderr
