"""What of a repository becomes part of an image, and how it is there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ipython_builder import source
from ipython_builder.build import context
from ipython_builder.errors import RepositoryError
from ipython_builder.source import Checkout
from tests.workbench import git, notebook


def checkout(root: Path, *, in_place: bool = True, epoch: int = 1_700_000_000) -> Checkout:
    return Checkout(root, root, str(root), None, None, epoch, in_place, ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    notebook(root / "a.ipynb", "1")
    (root / "data").mkdir()
    (root / "data" / "x.csv").write_text("1\n")
    return root


def test_modes_and_times(root: Path, tmp_path: Path) -> None:
    (root / "tool.sh").write_text("#!/bin/sh\n")
    (root / "tool.sh").chmod(0o700)
    (root / "private").write_text("x")
    (root / "private").chmod(0o600)
    (root / ".s2i" / "bin").mkdir(parents=True)
    (root / ".s2i" / "bin" / "run").write_text("#!/bin/sh\n")
    before = os.umask(0o077)
    try:
        staged = context.stage(checkout(root), tmp_path / "target")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "target").rglob("*")}
    assert modes == {
        "a.ipynb": 0o664, "data": 0o775, "x.csv": 0o664, "tool.sh": 0o775, "private": 0o664,
        ".s2i": 0o775, "bin": 0o775, "run": 0o775,
    }  # fmt: skip
    assert {path.lstat().st_mtime for path in (tmp_path / "target").rglob("*")} == {1_700_000_000}
    assert staged.files == (".s2i/bin/run", "a.ipynb", "data/x.csv", "private", "tool.sh")
    assert staged.bytes == sum((root / name).stat().st_size for name in staged.files)


def test_a_folder_without_commits_has_a_time_that_zip_knows(root: Path) -> None:
    assert context.time_of(checkout(root, epoch=0)) > 315_532_800


def test_what_programs_keep_in_a_folder_stays_out(root: Path, tmp_path: Path) -> None:
    for name in ("__pycache__/x.pyc", ".ipynb_checkpoints/a.ipynb", "node_modules/m", "own/pyvenv.cfg"):
        (root / name).parent.mkdir()
        (root / name).touch()
    (root / "data" / ".git").write_text("gitdir: elsewhere")
    os.mkfifo(root / "pipe")
    staged = context.stage(checkout(root), tmp_path / "target")
    assert staged.files == ("a.ipynb", "data/x.csv")
    assert set(staged.left_out) == {"__pycache__", ".ipynb_checkpoints", "node_modules", "own", "pipe"}


def test_what_git_ignores_stays_out_of_a_working_folder(root: Path, tmp_path: Path) -> None:
    (root / ".gitignore").write_text(".env\nresults/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    (root / ".env").write_text("TOKEN=hunter2")
    (root / "results").mkdir()
    (root / "results" / "big").touch()
    (root / "new.ipynb").write_text("{}")
    (root / "data" / ".env").touch()
    staged = context.stage(checkout(root), tmp_path / "target")
    assert staged.files == (".gitignore", "a.ipynb", "data/x.csv", "new.ipynb")
    assert staged.left_out == (".env", "data/.env", "results")
    # The same for a folder in it.
    below = checkout(root / "data")
    assert context.stage(below, tmp_path / "below").files == ("x.csv",)


def test_a_repositorys_configuration_runs_nothing(root: Path, tmp_path: Path) -> None:
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    (tmp_path / "monitor").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "monitor").chmod(0o755)
    git(root, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    context.stage(checkout(root), tmp_path / "target")
    assert not (tmp_path / "ran").exists()


def test_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (root / "beside").symlink_to("a.ipynb")
    (root / "absolute").symlink_to(root / "data" / "x.csv")
    (root / "folder").symlink_to("data")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("../outside")
    target = tmp_path / "target"
    staged = context.stage(checkout(root, in_place=False), target)
    assert staged.left_out == ("out", "up")
    assert os.readlink(target / "beside") == "a.ipynb"
    assert os.readlink(target / "absolute") == "data/x.csv"
    assert os.readlink(target / "folder") == "data"
    assert not (target / "out").exists()


def test_s2iignore(root: Path, tmp_path: Path) -> None:
    for name in ("a.tmp", "keep.tmp", "data/b.tmp", "raw/x"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / ".s2iignore").write_text("# not these\n*.tmp\n!keep.tmp\nraw\n")
    staged = context.stage(checkout(root, in_place=False), tmp_path / "target")
    assert staged.files == (".s2iignore", "a.ipynb", "data/b.tmp", "data/x.csv", "keep.tmp")


def test_variables_for_s2i(root: Path) -> None:
    (root / ".s2i").mkdir()
    (root / ".s2i" / "environment").write_text('# of the image\nA=1\n\nB=x "y" = z\n')
    assert context.environment(root) == {"A": "1", "B": 'x "y" = z'}
    (root / ".s2i" / "environment").write_text("A=1\nexport B\n")
    with pytest.raises(RepositoryError, match=r"\.s2i/environment:2: 'export B' … is no variable"):
        context.environment(root)


def test_a_digest_knows_names_modes_and_content(root: Path) -> None:
    seen = {context.digest(root), context.digest(root, "https://index.example/simple")}
    (root / "a.ipynb").chmod(0o755)
    seen.add(context.digest(root))
    (root / "data" / "x.csv").write_text("2\n")
    seen.add(context.digest(root))
    (root / "data" / "x.csv").rename(root / "data" / "y.csv")
    seen.add(context.digest(root))
    (root / "link").symlink_to("a.ipynb")
    seen.add(context.digest(root))
    assert len(seen) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    (root / "a.ipynb").chmod(0)
    with pytest.raises(RepositoryError, match=r"a\.ipynb cannot be read"):
        context.stage(checkout(root), tmp_path / "target")


def test_a_clone_and_a_working_folder_give_the_same(root: Path, tmp_path: Path, home: object) -> None:
    from ipython_builder import settings
    from ipython_builder.events import Reporter

    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    subprocess.run(["chmod", "-R", "go-rwx", root], check=True)
    cloned = source.fetch(source.parse(root.as_uri()), tmp_path / "clone", settings.load(), Reporter())
    here = source.fetch(source.parse(str(root)), tmp_path / "none", settings.load(), Reporter())
    context.stage(cloned, tmp_path / "1")
    context.stage(here, tmp_path / "2")
    assert context.digest(tmp_path / "1") == context.digest(tmp_path / "2")
    times = [(tmp_path / name / "a.ipynb").stat().st_mtime for name in ("1", "2")]
    assert times == [here.epoch, here.epoch]
