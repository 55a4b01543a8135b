"""Locks and bills of materials: what is written is read again, and the same input is the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

from ipython_builder.build import bill, installed
from ipython_builder.build.bill import Entry

H1, H2 = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def make(root: Path, name: str, version: str, metadata: str = "", url: str = "") -> None:
    info = root / f"lib/python3.13/site-packages/{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}")
    (info / "RECORD").write_text(
        f"{info.name}/METADATA,,\n{info.name}/uv_cache.json,,\n{info.name}/RECORD,,\n"
    )
    if url:
        (info / "direct_url.json").write_text(url)


def environment(root: Path) -> list[installed.Installed]:
    make(
        root,
        "Zope.Thing",
        "1.0",
        "License-Expression: MIT\nRequires-Dist: numpy>=1\nRequires-Dist: x; extra=='y'\n",
    )
    make(root, "numpy", "2.1", "License: a very\n  long text\n")
    make(root, "helpers", "3", url='{"url": "file:///tmp/src/helpers", "dir_info": {}}')
    make(
        root, "fromgit", "4",
        url='{"url": "https://me:hunter2@host/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
    )  # fmt: skip
    make(root, "ipython_cluster", "0.1")
    return installed.read(root)


def test_a_lock_says_what_is_installed_and_where_it_is_from(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(pins: list[str]) -> str:
        asked.append(pins)
        return f"zope-thing==1.0 \\\n    --hash={H2} \\\n    --hash={H1}\n"

    known = {"numpy": Entry("numpy", "2.1", (H1,)), "zope-thing": Entry("zope-thing", "0.9", (H1,))}
    found = bill.entries(environment(tmp_path), [known], ask, Path("/tmp/src"))
    text = bill.lock(found)
    assert asked == [["zope-thing==1.0"]]
    assert text.splitlines()[1:] == [
        "# fromgit==4: made from git+https://***@host/r@abc",
        "# helpers==3: made from the repository/helpers",
        "# ipython-cluster==0.1: a part of ipython-builder",
        "numpy==2.1 \\",
        f"    --hash={H1}",
        "zope-thing==1.0 \\",
        f"    --hash={H1} \\",
        f"    --hash={H2}",
    ]
    assert bill.parse(text) == {entry.name: entry for entry in found}


def test_an_index_that_says_nothing(tmp_path: Path) -> None:
    make(tmp_path, "six", "1.16.0")
    found = bill.entries(installed.read(tmp_path), [], lambda pins: "", Path("/r"))
    assert bill.lock(found).splitlines()[1:] == ["six==1.16.0"]


def test_a_bill_of_materials(tmp_path: Path) -> None:
    distributions = environment(tmp_path)
    found = bill.entries(distributions, [], lambda pins: f"numpy==2.1 --hash={H1}\n", Path("/tmp/src"))
    text = bill.bill(distributions, found)
    assert bill.bill(distributions, found) == text
    said = json.loads(text)
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert "timestamp" not in said["metadata"]
    components = {one["name"]: one for one in said["components"]}
    assert components["numpy"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert "licenses" not in components["numpy"]
    assert components["zope-thing"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert components["fromgit"]["purl"].startswith("pkg:pypi/fromgit@4?vcs_url=git%2Bhttps")
    assert "hunter2" not in text
    needs = {one["ref"]: one.get("dependsOn", []) for one in said["dependencies"]}
    assert needs["zope-thing==1.0"] == ["numpy==2.1"]
    assert len(needs["app-root"]) == 5
    # Another content is another number.
    make(tmp_path, "more", "1")
    distributions = installed.read(tmp_path)
    found = bill.entries(distributions, [], lambda pins: "", Path("/tmp/src"))
    assert json.loads(bill.bill(distributions, found))["serialNumber"] != said["serialNumber"]


def test_the_date_of_an_installation_is_taken_away(tmp_path: Path) -> None:
    make(tmp_path, "helpers", "3")
    info = installed.read(tmp_path)[0].info
    (info / "uv_cache.json").write_text("{}")
    installed.mend(info)
    assert not (info / "uv_cache.json").exists()
    assert "uv_cache" not in (info / "RECORD").read_text()
    assert list(installed.read(tmp_path)[0].files(tmp_path)) == [
        info.relative_to(tmp_path) / "METADATA",
        info.relative_to(tmp_path) / "RECORD",
    ]


def test_a_file_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "a/b"
    bill.write(file, "x")
    inode = file.stat().st_ino
    bill.write(file, "x")
    assert file.stat().st_ino == inode
    bill.write(file, "y")
    assert (file.read_text(), os_listing(file.parent)) == ("y", ["b"])


def os_listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
