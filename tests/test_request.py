"""A specification as a folder: there and back, and the same bytes for the same dependencies."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ipython_builder import keys, spec
from ipython_builder.build import context, request
from ipython_builder.errors import BuilderError
from ipython_builder.spec import Spec
from tests.workbench import notebook, wheel

REPOS = Path(__file__).parent / "repos"
GOOD = sorted(path.name for path in REPOS.iterdir() if path.is_dir() and path.name != "bad")
# What decides nothing about an environment.
OF_NOTEBOOKS = {"root", "notebooks", "notices", "pool", "hooks", "serves_itself", "pylock", "local_paths"}


def rooted(value: object, root: Path) -> object:
    text = repr(value).replace(root.as_uri(), "ROOT").replace(str(root), "ROOT")
    return text.replace("[", "(").replace("]", ")")


@pytest.mark.parametrize("name", GOOD)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    asked = spec.read(REPOS / name)
    request.dump(asked, tmp_path / "request")
    found = request.load(tmp_path / "request")
    assert found.root == (tmp_path / "request").resolve()
    for field in dataclasses.fields(Spec):
        if field.name not in OF_NOTEBOOKS:
            mine, other = getattr(asked, field.name), getattr(found, field.name)
            assert rooted(mine, asked.root) == rooted(other, found.root), field.name
    assert [keys.content(path) for path in found.local_paths] == [
        keys.content(path) for path in asked.local_paths
    ]
    assert (found.pylock is None) == (asked.pylock is None)
    if asked.pylock and found.pylock:
        assert found.pylock.read_bytes() == asked.pylock.read_bytes()
    assert not found.notebooks


def test_notebooks_change_no_byte_of_it(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    notebook(root / "a.ipynb", "1")
    (root / "requirements.txt").write_text("six\n./tools\n")
    (root / "tools").mkdir()
    (root / "tools" / "pyproject.toml").write_text("[project]\nname = 'tools'\nversion = '1'\n")
    (root / "tools" / "tools.py").write_text("A = 1\n")

    def digest(name: str) -> str:
        request.dump(spec.read(root), tmp_path / name)
        return context.digest(tmp_path / name)

    before = digest("1")
    notebook(root / "a.ipynb", "2")
    notebook(root / "tools" / "b.ipynb", "3")
    (root / "data.csv").write_text("1\n")
    (root / "tools" / "__pycache__").mkdir()
    (root / "tools" / "__pycache__" / "x.pyc").touch()
    assert digest("2") == before
    (root / "tools" / "tools.py").write_text("A = 2\n")
    assert digest("3") != before
    (root / "tools" / "tools.py").write_text("A = 1\n")
    assert digest("4") == before
    (root / "requirements.txt").write_text("six>=1.16\n./tools\n")
    assert digest("5") != before


def test_local_packages_are_where_they_are_in_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "a repository"
    (root / "wheels").mkdir(parents=True)
    made = wheel(root / "wheels", "own", "1.0", own="")
    (root / "requirements.txt").write_text(f"--find-links wheels\nwheels/{made.name}\n")
    request.dump(spec.read(root), tmp_path / "request")
    found = request.load(tmp_path / "request")
    here = (tmp_path / "request").resolve()
    assert found.find_links == ((here / "wheels").as_uri(),)
    assert found.lines == (f"own @ {(here / 'wheels' / made.name).as_uri()}",)
    assert (here / "wheels" / made.name).read_bytes() == made.read_bytes()
    assert str(root) not in (here / request.FILE).read_text()


def test_modes_and_times_are_the_same_everywhere(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        request.dump(spec.read(REPOS / "requirements-local"), tmp_path / "request")
    finally:
        os.umask(before)
    for path in (tmp_path / "request").rglob("*"):
        found = path.stat()
        assert found.st_mode & 0o777 in ((0o775,) if path.is_dir() else (0o664, 0o775))
        assert found.st_mtime == request.EARLIEST


@pytest.mark.parametrize("text", [None, "no JSON", "{}", '{"format": 99}', "[]"])
def test_what_is_no_request(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / request.FILE).parent.mkdir()
        (tmp_path / request.FILE).write_text(text)
    with pytest.raises(BuilderError, match="is no request that this version reads") as caught:
        request.load(tmp_path)
    assert "make images" in (caught.value.hint or "")
