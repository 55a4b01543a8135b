"""What we add to an environment: the wheel of ipython_cluster, and the locks."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from ipython_builder import runtime
from ipython_builder._version import __version__
from tests.conftest import CHECKOUT
from tests.packages import Made, python

PACKAGE = CHECKOUT / "builder" / "ipython_cluster"


def test_the_wheel_is_the_same_bytes_wherever_it_is_made(tmp_path: Path) -> None:
    one, two = runtime.wheel(tmp_path / "one"), runtime.wheel(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert one.relative_to(tmp_path / "one") == two.relative_to(tmp_path / "two")
    assert one.parent.name == runtime.wheel_key()
    assert [path.name for path in one.parent.iterdir()] == [one.name]
    before = one.stat().st_mtime_ns
    assert runtime.wheel(tmp_path / "one") == one
    assert one.stat().st_mtime_ns == before


def test_the_wheel_is_one(tmp_path: Path) -> None:
    path = runtime.wheel(tmp_path)
    name, version, _, tags = parse_wheel_filename(path.name)
    assert (name, str(version)) == ("ipython-cluster", __version__)
    assert {str(tag) for tag in tags} == {"py3-none-any"}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    listed = f"ipython_cluster-{__version__}.dist-info/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(contents[listed].decode()))}
    assert set(rows) == set(contents)
    for member, (digest, size) in rows.items():
        if member == listed:
            assert (digest, size) == ("", "")
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(contents[member]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={expected}", str(len(contents[member])))


def test_everything_of_the_package_is_in_the_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(runtime.wheel(tmp_path)) as archive:
        names = set(archive.namelist())
        for source in PACKAGE.glob("*.py"):
            assert archive.read(f"ipython_cluster/{source.name}") == source.read_bytes()
        assert archive.read("ipython_cluster.pth") == (PACKAGE / "ipython_cluster.pth").read_bytes()
        points = archive.read(f"ipython_cluster-{__version__}.dist-info/entry_points.txt").decode()
    assert {name for name in names if name.startswith("ipython_cluster/")} == {
        f"ipython_cluster/{path.name}" for path in PACKAGE.glob("*.py")
    }
    group = ""
    loaded = []
    for line in points.splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line:
            name, _, value = line.partition(" = ")
            loaded.append((group, EntryPoint(name, value, group).load().__name__))
    assert loaded == [
        ("ipyparallel.controller_launchers", "ControllerLauncher"),
        ("ipyparallel.engine_launchers", "EngineSetLauncher"),
        ("jupyter_client.kernel_provisioners", "PoolProvisioner"),
    ]


def test_the_versions_of_package_and_tool_are_one() -> None:
    import ipython_cluster

    assert ipython_cluster.__version__ == __version__


def pins(text: str) -> dict[str, list[Requirement]]:
    """Name -> its lines in a lock, without hashes."""
    found: dict[str, list[Requirement]] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            wish = Requirement(re.sub(r"\s+--hash=\S+", "", line).strip())
            found.setdefault(canonicalize_name(wish.name), []).append(wish)
    return found


@pytest.mark.parametrize("minor", [9, 10, 11, 12, 13, 14])
def test_our_lock_has_one_version_of_each_for_every_python(minor: int) -> None:
    locked = pins(runtime.preferred_versions())
    environment = {
        "python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "sys_platform": "linux",
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_system": "Linux",
    }  # fmt: skip
    for name in ("ipykernel", "ipyparallel", "pip", "pyzmq", "tornado", "ipython"):
        fitting = [one for one in locked[name] if not one.marker or one.marker.evaluate(environment)]
        assert len(fitting) == 1, name
    for text in runtime.REQUIREMENTS:
        wish = Requirement(text)
        chosen = next(one for one in locked[wish.name] if not one.marker or one.marker.evaluate(environment))
        assert wish.specifier.contains(str(chosen.specifier).removeprefix("=="))


def test_every_line_of_the_viewers_lock_has_hashes() -> None:
    text = re.sub(r"\\\n", " ", runtime.viewer_lock())
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) > 50
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert {"jupyterlab", "ipyparallel"} <= set(pins(runtime.viewer_lock()))


def test_the_locks_are_of_what_they_say() -> None:
    """`make locks` was run after runtime.in or viewer.in changed."""
    for name, text in (("runtime", runtime.preferred_versions()), ("viewer", runtime.viewer_lock())):
        wishes = (CHECKOUT / "builder" / "ipython_builder" / "locks" / f"{name}.in").read_text().splitlines()
        locked = pins(text)
        for line in filter(None, wishes):
            wish = Requirement(line)
            assert all(
                wish.specifier.contains(str(one.specifier).removeprefix("=="))
                for one in locked[canonicalize_name(wish.name)]
            ), f"{name}: {line}"
    ours = (CHECKOUT / "builder" / "ipython_builder" / "locks" / "runtime.in").read_text().split()
    assert sorted(ours) == sorted(runtime.REQUIREMENTS)


@pytest.mark.slow
def test_the_old_name_is_there_before_anything_is_imported(make: Made) -> None:
    env = make("")
    code = (
        "import sys; before = 'ipyparallel' in sys.modules\n"
        "from IPython.parallel import Client; import ipyparallel, IPython.parallel.error\n"
        "print(before, Client is ipyparallel.Client)"
    )
    assert python(env, code) == "False True"
    code = (
        "from importlib.metadata import entry_points\n"
        "print(*[p.load().__module__ for g in ('controller', 'engine')"
        " for p in entry_points(group=f'ipyparallel.{g}_launchers', name='ipython-cluster')])"
    )
    assert python(env, code) == "ipython_cluster.launchers ipython_cluster.launchers"
