"""Bytecode that is compiled once, linked everywhere, and valid without a look at any date."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import py_compile
import sys
from pathlib import Path

import pytest

from ipython_builder import bytecode
from ipython_builder.events import Reporter
from tests.packages import Kept, Made, python

PYTHON = Path(sys.executable)
UNCHECKED_HASH = b"\x01\0\0\0"  # PEP 552: hash-based, and not to be checked against the source


def install(site: Path, files: dict[str, str]) -> None:
    """What an installer leaves of a package."""
    rows = []
    for path, text in files.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append([path, f"sha256={digest}", str(len(text))])
    info = site / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    with (info / "RECORD").open("w", newline="") as record:
        csv.writer(record).writerows([*rows, [f"{info.name}/RECORD", "", ""]])


def ensure(site: Path, store: Path) -> list[str]:
    """The messages of the phases that ran."""
    sink = Kept()
    bytecode.ensure(PYTHON, site, store, Reporter(sink))
    return [event.message for event in sink.events if event.kind == "start"]


def valid(source: Path) -> bool:
    """Whether a source has bytecode that Python takes without a look at the source's date."""
    pyc = Path(importlib.util.cache_from_source(str(source)))
    if not pyc.is_file():
        return False
    head = pyc.read_bytes()[:16]
    magic, hashed = importlib.util.MAGIC_NUMBER, importlib.util.source_hash(source.read_bytes())
    return head == magic + UNCHECKED_HASH + hashed


def test_what_was_compiled_once_is_linked_the_second_time(tmp_path: Path) -> None:
    sources = {"demo/__init__.py": "x = 1\n", "demo/sub/a.py": "def f(): return 2\n", "top.py": "y = 3\n"}
    one, two, store = tmp_path / "one", tmp_path / "two", tmp_path / "store"
    install(one, sources)
    assert ensure(one, store) == ["compiling 3 modules of 1 packages"]
    install(two, sources)
    assert ensure(two, store) == []
    for site in (one, two):
        assert all(valid(path) for path in site.rglob("*.py"))
    pycs = [path.relative_to(one) for path in sorted(one.rglob("*.pyc"))]
    assert len(pycs) == 3
    assert all(os.path.samefile(one / pyc, two / pyc) for pyc in pycs)
    assert ensure(one, store) == []


def test_other_sources_are_another_entry(tmp_path: Path) -> None:
    one, two, store = tmp_path / "one", tmp_path / "two", tmp_path / "store"
    install(one, {"demo.py": "x = 1\n"})
    install(two, {"demo.py": "x = 2\n"})
    assert ensure(one, store) == ensure(two, store) == ["compiling 1 modules of 1 packages"]
    assert valid(one / "demo.py")
    assert valid(two / "demo.py")
    assert not os.path.samefile(*(importlib.util.cache_from_source(str(s / "demo.py")) for s in (one, two)))


def test_tests_and_templates_that_are_no_python(tmp_path: Path) -> None:
    store = tmp_path / "store"
    files = {"demo.py": "x = 1\n", "template.py": "def {{ name }}(:\n"}
    files |= {"demo2/tests/t.py": "x = 1\n", "test/t.py": "", "demo2/contest.py": ""}
    for name, said in (("one", ["compiling 3 modules of 1 packages"]), ("two", [])):
        install(tmp_path / name, files)
        assert ensure(tmp_path / name, store) == said
        compiled = {path.name.partition(".")[0] for path in (tmp_path / name).rglob("*.pyc")}
        assert compiled == {"demo", "contest"}


def test_bytecode_that_python_left_before_us_is_replaced(tmp_path: Path) -> None:
    """A .pth file of a package imports at every start of its Python, which then writes bytecode with a date."""
    store = tmp_path / "store"
    for name in ("one", "two"):
        install(tmp_path / name, {"demo.py": "x = 1\n"})
        py_compile.compile(str(tmp_path / name / "demo.py"))
        assert not valid(tmp_path / name / "demo.py")
        ensure(tmp_path / name, store)
        assert valid(tmp_path / name / "demo.py")


@pytest.mark.parametrize("record", [None, "", "demo.py\n", "\xff", "../../etc/x.py,sha256=a,1\n"])
def test_a_record_that_says_nothing_is_slower_and_not_wrong(tmp_path: Path, record: str | None) -> None:
    site, store = tmp_path / "site", tmp_path / "store"
    install(site, {"demo.py": "x = 1\n"})
    path = site / "demo-1.0.dist-info" / "RECORD"
    if record is None:
        path.unlink()
    else:
        path.write_text(record, encoding="latin-1")
    assert ensure(site, store) == []


def test_what_could_not_be_compiled_whole_is_not_kept(tmp_path: Path) -> None:
    """A compiler that is killed, as for want of memory: the next environment tries again."""
    site, store = tmp_path / "site", tmp_path / "store"
    install(site, {"demo.py": "x = 1\n"})
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    bytecode.ensure(killed, site, store, Reporter())
    assert not any(store.rglob("*.pyc"))
    assert ensure(site, store) == ["compiling 1 modules of 1 packages"]
    assert valid(site / "demo.py")


def test_a_store_on_another_disk_is_copied_from(tmp_path: Path) -> None:
    disk = Path("/dev/shm")
    if not os.access(disk, os.W_OK) or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    import tempfile

    with tempfile.TemporaryDirectory(dir=disk) as store:
        for name in ("one", "two"):
            install(tmp_path / name, {"demo.py": "x = 1\n"})
            ensure(tmp_path / name, Path(store))
            assert valid(tmp_path / name / "demo.py")


# -- in a real environment -----------------------------------------------------------------------


@pytest.mark.slow
def test_every_module_of_an_environment_has_bytecode(make: Made) -> None:
    env = make("six==1.16.0\nidna\n")
    sources = [path for path in env.site_packages.rglob("*.py") if not {"tests", "test"} & set(path.parts)]
    assert len(sources) > 1000
    # uv's own helper files belong to no package.
    without = {path.name for path in sources if not valid(path)} - {"_virtualenv.py"}
    assert without == set()


@pytest.mark.slow
def test_the_second_environment_compiles_nothing_and_its_tracebacks_name_itself(make: Made) -> None:
    first, second = make("six==1.16.0\n"), make("six==1.16.0\ntabulate\n")
    assert "compile" not in make(make.spec("tabulate\nsix==1.16.0\nidna==3.7\n")).key
    third = make("idna==3.7\nsix==1.16.0\ntabulate\n")
    assert first.path != second.path != third.path
    assert "compile" not in make.sink.phases
    code = "import six, traceback\ntry: six.ensure_text(3)\nexcept TypeError: print(traceback.format_exc())"
    for env in (first, second, third):
        assert f'File "{env.site_packages}/six.py"' in python(env, code)
        assert python(env, "import six; print(six.__cached__)").startswith(str(env.site_packages))
    one, three = (env.site_packages / "__pycache__" for env in (first, third))
    (name,) = (path.name for path in one.glob("six.*.pyc"))
    assert os.path.samefile(one / name, three / name)
