"""A cluster's record and its private files."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import pytest

from ipython_builder import record
from ipython_builder.errors import BuilderError
from ipython_builder.record import Home, Record

RECORD = Record(
    label="x7k2q", user="me123", source="https://host/me/nb.git", ref="v2", context_dir="course",
    commit="a" * 40, checkout="/d/w", in_place=False, notebooks="/d/w/course",
    environment="e" * 24, environment_path="/c/e", python="3.13.0",
    viewer_environment=None, viewer_python="/c/v/bin/python", viewer_module="notebook",
    viewer_host="::1", viewer_port=8080, first_port=10000, engines=4, extra=("numpy", "scipy>=1.11"),
    preload=("numpy", "scipy.stats"), preload_timeout=5.0, fork=False, fork_asked=False,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Home:
    return Home(tmp_path / "clusters" / "x7k2q")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_saved_is_loaded(folder: Home) -> None:
    record.save(folder, RECORD)
    assert record.load(folder) == RECORD
    record.save(folder, RECORD.with_engines(7))
    loaded = record.load(folder)
    assert loaded is not None
    assert loaded.engines == 7
    assert asdict(loaded) == asdict(RECORD) | {"engines": 7}


def test_no_record_is_none(folder: Home) -> None:
    assert record.load(folder) is None
    folder.path.mkdir(parents=True)
    assert record.load(folder) is None


def test_a_newer_tools_record_can_be_read(folder: Home) -> None:
    record.save(folder, RECORD)
    path = folder.path / record.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dask_workers": 3}))
    assert record.load(folder) == RECORD


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "3", '"x"', "{}", '{"label": "x7k2q"}', b"\xff\xfe\x00", b"\0" * 4096],
)
def test_a_damaged_record_says_how_to_get_rid_of_it(folder: Home, text: str | bytes) -> None:
    record.save(folder, RECORD)
    (folder.path / record.NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BuilderError) as caught:
        record.load(folder)
    assert str(folder.path / record.NAME) in caught.value.message
    assert "ipython-builder down x7k2q" in (caught.value.hint or "")


def test_an_older_tools_record_can_be_read(folder: Home) -> None:
    record.save(folder, RECORD)
    path = folder.path / record.NAME
    later = ("preload", "preload_timeout", "fork", "fork_asked")
    path.write_text(json.dumps({k: v for k, v in asdict(RECORD).items() if k not in later}))
    loaded = record.load(folder)
    assert loaded == replace(RECORD, preload=(), preload_timeout=30.0, fork=True, fork_asked=None)


def test_what_needs_no_restart() -> None:
    for changed in (
        RECORD.with_engines(99),
        replace(RECORD, preload=("pandas",)),
        replace(RECORD, preload_timeout=1.0),
        replace(RECORD, fork=True, fork_asked=None),
    ):
        assert changed != RECORD
        assert changed.substance() == RECORD.substance()
    assert replace(RECORD, environment="f" * 24).substance() != RECORD.substance()
    assert replace(RECORD, extra=()).substance() != RECORD.substance()


def test_every_field_is_needed(folder: Home) -> None:
    record.save(folder, RECORD)
    whole = asdict(RECORD)
    for field in fields(Record):
        if field.default is MISSING:
            part = {name: value for name, value in whole.items() if name != field.name}
            (folder.path / record.NAME).write_text(json.dumps(part))
            with pytest.raises(BuilderError, match=field.name):
                record.load(folder)


def test_private_files_are_the_owners_alone_whatever_the_umask(folder: Home) -> None:
    before = os.umask(0)
    try:
        record.write_private(folder.key, "secret\n")
    finally:
        os.umask(before)
    assert mode(folder.key) == 0o600
    assert mode(folder.path) == 0o700


def test_a_file_that_others_could_read_is_replaced_and_not_written_into(folder: Home) -> None:
    folder.path.mkdir(parents=True)
    folder.key.write_text("old")
    folder.key.chmod(0o644)
    with folder.key.open() as held:
        record.write_private(folder.key, "secret\n")
        assert held.read() == "old"
    assert folder.key.read_text() == "secret\n"
    assert mode(folder.key) == 0o600


def test_what_a_killed_writer_left_is_in_nobodys_way(folder: Home) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / f".key.{os.getpid()}").write_text("half")
    record.write_private(folder.key, "whole\n")
    assert [path.name for path in folder.path.iterdir()] == ["key"]
    assert folder.key.read_text() == "whole\n"


def test_everything_of_a_cluster_is_in_its_folder(folder: Home) -> None:
    assert folder.label == "x7k2q"
    paths = (getattr(folder, n) for n, v in vars(Home).items() if isinstance(v, property) and n != "label")
    assert all(path.is_relative_to(folder.path) for path in paths)
