"""Reading logs that are there, and following logs that are written, put aside and removed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import pytest

from ipython_builder import logs
from ipython_builder.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("node", "controller", "viewer", "engine-0", "engine-2", "engine-10"):
        (tmp_path / f"{name}.log").write_text(f"{name} one\n{name} two\n")
    (tmp_path / "engine-0.log.1").write_text("of yesterday\n")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def test_files_are_in_the_order_a_person_counts(folder: Path) -> None:
    everything = ["controller", "engine-0", "engine-2", "engine-10", "node", "viewer"]
    assert names(logs.files(folder, None)) == everything
    assert names(logs.files(folder, "engine")) == ["engine-0", "engine-2", "engine-10"]
    assert names(logs.files(folder, "engine-10")) == ["engine-10"]
    assert names(logs.files(folder, "supervisor")) == ["node"]


@pytest.mark.parametrize("role", ["enigne", "engine-1", "engine-", "", "../node", "*"])
def test_a_log_that_is_not_there(folder: Path, role: str) -> None:
    with pytest.raises(UsageError) as caught:
        logs.files(folder, role)
    assert repr(role) in caught.value.message
    near = role in ("enigne", "engine-")
    there = "there are logs of controller, engine, supervisor, viewer"
    assert caught.value.hint == ("did you mean engine?" if near else there)


def test_no_logs_at_all(tmp_path: Path) -> None:
    assert logs.files(tmp_path, None) == []
    assert list(logs.lines(tmp_path, None)) == []
    with pytest.raises(UsageError) as caught:
        list(logs.lines(tmp_path / "nowhere", "viewer"))
    assert "nothing yet" in (caught.value.hint or "")


def test_one_log_is_shown_as_it_is_and_several_with_their_names(folder: Path) -> None:
    assert list(logs.lines(folder, "viewer")) == ["viewer one", "viewer two"]
    assert list(logs.lines(folder, "engine", last=1)) == [
        "engine-0: engine-0 two",
        "engine-2: engine-2 two",
        "engine-10: engine-10 two",
    ]
    assert list(logs.lines(folder, "viewer", last=0)) == []


def test_a_last_line_without_its_end_and_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "viewer.log").write_bytes(b"caf\xc3\xa9 \xff\nkilled while")
    assert list(logs.lines(folder, "viewer")) == ["café �", "killed while"]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_following_shows_what_comes_and_whole_lines_only(folder: Path) -> None:
    append(folder / "controller.log", "half")
    said = logs.lines(folder, None, follow=True, last=1)
    first, *_ = [next(said) for _ in range(6)]
    assert first == "controller: controller two"
    append(folder / "viewer.log", "viewer three\n")
    # Were the half line shown, it would come first: the controller's log is looked at before the viewer's.
    assert next(said) == "viewer: viewer three"
    append(folder / "controller.log", " a line, ü")
    append(folder / "engine-2.log", "working\nstill\n")
    assert [next(said), next(said)] == ["engine-2: working", "engine-2: still"]
    append(folder / "controller.log", "\n")
    assert next(said) == "controller: half a line, ü"
    (folder / "engine-3.log").write_text("a new engine\n")
    assert next(said) == "engine-3: a new engine"


def test_following_one_log_names_it_because_others_may_join(folder: Path) -> None:
    (folder / "engine-2.log").unlink()
    (folder / "engine-10.log").unlink()
    said = logs.lines(folder, "engine", follow=True, last=1)
    assert next(said) == "engine-0: engine-0 two"


def test_following_a_log_that_is_put_aside(folder: Path) -> None:
    path = folder / "viewer.log"
    said = logs.lines(folder, "viewer", follow=True, last=1)
    assert next(said) == "viewer: viewer two"
    descriptor = logs.open_log(path)  # as the role has it, all the time
    logs.put_aside(path)
    os.write(descriptor, b"first\nsecond\n")
    os.close(descriptor)
    assert path.with_suffix(".log.1").read_text() == "viewer one\nviewer two\n"
    assert next(said) == "viewer: first"
    assert next(said) == "viewer: second"


def test_following_a_log_that_somebody_emptied(folder: Path) -> None:
    said = logs.lines(folder, "viewer", follow=True, last=1)
    assert next(said) == "viewer: viewer two"
    (folder / "viewer.log").write_text("new\n")
    assert next(said) == "viewer: new"


def test_following_ends_with_the_cluster(folder: Path) -> None:
    said = logs.lines(folder, "engine", follow=True, last=1)
    assert len([next(said) for _ in range(3)]) == 3
    for path in logs.files(folder, "engine"):
        path.unlink()
    (folder / "engine-0.log").write_text("back\n")
    assert next(said) == "engine-0: back"
    shutil.rmtree(folder)
    assert list(said) == []


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    descriptor = logs.open_log(tmp_path / "no" / "such" / "folder.log")
    assert os.write(descriptor, b"into nothing\n") == 13
    os.close(descriptor)


def test_a_log_is_the_owners_alone_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "viewer.log"
    for text in (b"one\n", b"two\n"):
        descriptor = logs.open_log(path)
        os.write(descriptor, text)
        os.close(descriptor)
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_large_log_is_put_aside_while_somebody_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LIMIT", 10)
    path = tmp_path / "engine-0.log"
    writer = logs.open_log(path)
    os.write(writer, b"x" * 11)

    async def look() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(logs.rotate(tmp_path, 0.01), 0.5)

    asyncio.run(look())
    os.write(writer, b"more")
    os.close(writer)
    assert path.read_text() == "more"
    assert path.with_suffix(".log.1").read_text() == "x" * 11
