"""Files come into their place whole, with the group's rights, and without a second copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ipython_builder.build import placing


@pytest.mark.parametrize(
    ("mode", "shared"), [(0o600, 0o664), (0o644, 0o664), (0o755, 0o775), (0o700, 0o775), (0o444, 0o664)]
)
def test_the_group_may_what_the_owner_may(tmp_path: Path, mode: int, shared: int) -> None:
    file = tmp_path / "one"
    file.write_text("x")
    file.chmod(mode)
    inode = file.stat().st_ino
    placing.move(file, tmp_path / "there/two")
    status = (tmp_path / "there/two").stat()
    assert (status.st_ino, status.st_mode & 0o777) == (inode, shared)
    assert not file.exists()


def test_what_cannot_be_renamed_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "replace", refuse)
    file = tmp_path / "one"
    file.write_text("x")
    os.utime(file, (1, 1))
    placing.move(file, tmp_path / "two")
    assert (tmp_path / "two").read_text() == "x"
    assert (tmp_path / "two").stat().st_mtime == 1
    assert not file.exists()


def test_a_tree_comes_over_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path, text in ((one / "a/x", "new"), (one / "b", "file"), (one / ".git/HEAD", "no"), (two / "a/x", "old"),
                       (two / "a/y", "kept"), (two / "b/z", "folder")):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (one / "link").symlink_to("a/x")
    (two / "link").write_text("was a file")
    placing.move_tree(one, two, without=frozenset({".git"}))
    assert (two / "a/x").read_text() == "new"
    assert (two / "a/y").read_text() == "kept"
    assert (two / "b").read_text() == "file"
    assert os.readlink(two / "link") == "a/x"
    assert not (two / ".git").exists()
    assert not one.exists()
    shutil.rmtree(two)
