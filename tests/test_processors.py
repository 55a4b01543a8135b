"""How many processors a control group grants, from its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipython_builder import processors

HERE = len(os.sched_getaffinity(0))


def group(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000", HERE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("1 100000", 1),
        ("90000000 100000", HERE),  # more than there are
        ("", HERE),
        ("nonsense here", HERE),
    ],
)
def test_version_2(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert processors.count(tmp_path) == count


def test_version_1(tmp_path: Path) -> None:
    for name in ("cpu", "cpu,cpuacct"):
        folder = tmp_path / name.replace(",", "-") / name
        folder.mkdir(parents=True)
        (folder / "cpu.cfs_period_us").write_text("100000\n")
        (folder / "cpu.cfs_quota_us").write_text("100000\n")
        assert processors.count(folder.parent) == 1
        (folder / "cpu.cfs_quota_us").write_text("-1\n")
        assert processors.count(folder.parent) == HERE


def test_no_control_group(tmp_path: Path) -> None:
    assert processors.count(tmp_path) == HERE
    (tmp_path / "cpu").mkdir()
    assert processors.count(tmp_path) == HERE
    assert processors.count() >= 1


def test_a_share_is_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for quota, count in ((150_000, 2), (240_000, 2), (260_000, 3), (400_000, 4)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert processors.count(tmp_path) == count
