"""Many files as a few: what is packed is there again, and nothing is written anywhere else."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from ipython_builder.build import bales


def packed(tmp_path: Path, root: Path, names: list[str]) -> Path:
    """A folder with the parts, as S2I makes it of the tar."""
    folder = tmp_path / "artifacts"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        bales.pack(archive, root, map(Path, names))
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_files_and_links_are_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bales, "PART_BYTES", 1 << 20)
    root = tmp_path / "root"
    (root / "lib/deep").mkdir(parents=True)
    large = os.urandom(3_500_000)
    (root / "lib/deep" / ("x" * 120)).write_bytes(large)
    (root / "lib/empty").touch()
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o700)
    (root / "link").symlink_to("lib/empty")
    os.utime(root / "tool", (1_000_000_000.5, 1_000_000_000.5))
    names = [f"lib/deep/{'x' * 120}", "lib/empty", "link", "tool"]
    folder = packed(tmp_path, root, names)
    assert len(bales.parts(folder)) > 3
    before = os.umask(0o002)
    try:
        assert bales.unpack(folder, tmp_path / "target")
    finally:
        os.umask(before)
    target = tmp_path / "target"
    assert (target / names[0]).read_bytes() == large
    assert (target / "link").readlink() == Path("lib/empty")
    assert (target / "tool").stat().st_mode & 0o777 == 0o775
    assert (target / "lib/empty").stat().st_mode & 0o777 == 0o664
    assert (target / "tool").stat().st_mtime == 1_000_000_000
    assert bales.parts(folder) == []


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_what_is_cut_off_is_not_whole(tmp_path: Path, left: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "one").write_bytes(os.urandom(20_000))
    folder = packed(tmp_path, root, ["one"])
    with bales.parts(folder)[0].open("r+b") as file:
        file.truncate(left)
    assert not bales.unpack(folder, tmp_path / "target")


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(folder / f"{bales.PREFIX}00000", "w") as inner:
        for name in ("../outside/a", f"{outside}/b", "x/../../outside/c", "door/d", "good"):
            if name == "door/d":
                link = tarfile.TarInfo("door")
                link.type, link.linkname = tarfile.SYMTYPE, str(outside)
                inner.addfile(link)
            info = tarfile.TarInfo(name)
            info.size = 4
            inner.addfile(info, io.BytesIO(b"text"))
    bales_were_whole = bales.unpack(folder, tmp_path / "target")
    assert not bales_were_whole, "a link that stands where a folder is"
    assert list(outside.iterdir()) == []
    assert (tmp_path / "target/good").read_text() == "text"
