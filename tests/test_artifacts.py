"""What one image saves for the next: put back as it was, no index asked, and only the difference installed."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from ipython_builder.build import artifacts, bales, bill
from tests.conftest import Cli
from tests.root import CLOSED, Image, notebook
from tests.test_assemble import SIX, upload_with_package

pytestmark = pytest.mark.slow


@pytest.fixture
def image(builder_root: Path, cli: Cli, tmp_path: Path) -> Image:
    return Image(tmp_path / "image", cli, builder_root)


def again(image: Image, builder_root: Path, *, cached: bool = False) -> tuple[Image, list[str]]:
    """The next build of the image: a new container of its builder with what the last one has saved."""
    tar = image.root.parent / "artifacts.tar"
    names = image.save(tar)
    image.root.rename(image.root.with_name("before"))
    following = Image(image.root, image.cli, builder_root, cached=cached)
    following.unpack(tar)
    return following, names


def test_the_same_requirements_ask_no_index(image: Image, builder_root: Path) -> None:
    # As `echo 'import six'` would: a changed notebook is no reason to install anything.
    text = f"{SIX}\ndecorator==5.2.0\ntabulate==0.9.0\n"
    image.upload(requirements_0txt=text, one_0ipynb=notebook("import six"))
    image.assemble()
    before = {path: path.read_bytes() for path in (image.places.lock, image.places.bill, image.places.marker)}
    following, names = again(image, builder_root)
    packages = f"lib/{following.packages.parent.name}/site-packages"
    assert f"{packages}/six.py" in names
    assert "bin/tabulate" in names
    assert any(name.startswith(f"{packages}/__pycache__/six.") for name in names)
    # Of the builder's own there is nothing.
    assert not [name for name in names if "ipykernel" in name or name.startswith("src/")]
    saved = (
        following.root.with_name("before") / following.packages.relative_to(following.root) / "six.py"
    ).stat()
    following.upload(requirements_0txt=text, one_0ipynb=notebook("import six, math"))
    said = following.assemble(index=CLOSED)
    assert "nothing to install: 3 packages of the previous image put back" in said.stderr
    restored = following.packages / "six.py"
    assert restored.stat().st_mtime == int(saved.st_mtime)
    assert not following.places.artifacts.exists()
    assert following.python("import six; print(six.__version__)") == "1.16.0"
    assert following.python("import importlib.metadata as m; print(m.version('decorator'))") == "5.2.0"
    assert len(list(following.packages.glob("decorator-*.dist-info"))) == 1
    # The way here cost the group its rights, and they are back.
    assert restored.stat().st_mode & 0o777 == 0o664
    assert (following.places.app_root / "bin/tabulate").stat().st_mode & 0o777 == 0o775
    assert {path: path.read_bytes() for path in before} == before
    # And once more: what was put back is saved again.
    third, more = again_after(following, builder_root)
    assert sorted(more) == sorted(names)
    third.upload(requirements_0txt=text)
    assert "3 packages of the previous image put back" in third.assemble(index=CLOSED).stderr


def again_after(image: Image, builder_root: Path) -> tuple[Image, list[str]]:
    (image.root.with_name("before")).rename(image.root.with_name("first"))
    return again(image, builder_root)


def test_other_requirements_are_the_difference(image: Image, builder_root: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\ndecorator==5.2.0\n")
    image.assemble()
    following, _ = again(image, builder_root, cached=True)
    following.open_bales()
    saved = next(following.places.artifacts.rglob("six.py")).stat().st_ino
    following.upload(requirements_0txt="six\ntabulate==0.9.0\n")
    said = following.assemble()
    assert "1 package of the previous image put back" in said.stderr
    # The version that is there is good enough, and what nobody asks for any more is the builder's again.
    assert (following.packages / "six.py").stat().st_ino == saved
    entries = bill.parse(following.places.lock.read_text())
    assert entries["six"].pin == SIX
    assert entries["tabulate"].pin == "tabulate==0.9.0"
    base = bill.parse(following.places.base_lock.read_text())
    assert entries["decorator"] == base["decorator"]
    assert set(entries) - set(base) == {"six", "tabulate"}


def test_a_package_of_the_repository_is_saved_and_seen_to_change(image: Image, builder_root: Path) -> None:
    upload_with_package(image)
    image.assemble()
    following, _ = again(image, builder_root)
    upload_with_package(following)
    assert "2 packages of the previous image put back" in following.assemble(index=CLOSED).stderr
    assert following.python("import helpers; print(helpers.answer)") == "41"
    following.mount_cache()
    third, _ = again_after(following, builder_root)
    third.mount_cache()
    upload_with_package(third, 42)
    assert "1 package of the previous image put back" in third.assemble().stderr
    assert third.python("import helpers; print(helpers.answer)") == "42"


def test_another_builder_starts_anew(image: Image, builder_root: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\n")
    image.assemble()
    following, _ = again(image, builder_root, cached=True)
    with following.places.base_lock.open("a") as file:
        file.write("# another builder\n")
    following.upload(requirements_0txt=f"{SIX}\n")
    said = following.assemble()
    assert "the builder image has changed" in said.stderr
    assert "put back" not in said.stderr
    assert not following.places.artifacts.exists()
    assert following.python("import six; print(six.__version__)") == "1.16.0"


def test_artifacts_that_are_not_whole_are_not_believed(image: Image, builder_root: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\ntabulate==0.9.0\n")
    image.assemble()
    following, _ = again(image, builder_root, cached=True)
    following.open_bales()
    for path in following.places.artifacts.rglob("six-*.dist-info/*"):
        path.unlink()
    next(following.places.artifacts.rglob("tabulate-*.dist-info/RECORD")).write_text(
        "../../../../etc/passwd,,\n"
    )
    following.upload(requirements_0txt=f"{SIX}\ntabulate==0.9.0\n")
    following.assemble()
    assert following.python("import six; print(six.__version__)") == "1.16.0"


def test_what_a_hook_has_changed_is_not_saved_as_asked_for(image: Image, builder_root: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\ntabulate==0.9.0\n")
    image.assemble()
    shutil.rmtree(next(image.packages.glob("tabulate-*.dist-info")))
    _, names = again(image, builder_root)
    marker = artifacts.marker(image.root / "tmp/artifacts" / artifacts.MARKER)
    assert marker is not None
    assert (marker.key, dict(marker.packages)) == ("", {"six": "1.16.0"})
    assert not [name for name in names if "tabulate" in name]


def test_a_builder_has_nothing_to_save(image: Image) -> None:
    assert image.save(image.root / "a.tar") == [artifacts.MARKER, artifacts.LOCK]
    image.places.marker.write_text("no JSON")
    assert image.save(image.root / "a.tar") == []
    image.places.marker.unlink()
    assert image.save(image.root / "a.tar") == []


def test_a_record_leads_nowhere_else(image: Image, tmp_path: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\n")
    image.assemble()
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    record = next(image.packages.glob("six-*.dist-info/RECORD"))
    with record.open("a") as file:
        file.write(f"{os.path.relpath(secret, image.packages)},,\n{secret},,\n")
    names = image.save(tmp_path / "a.tar")
    assert names
    assert not [name for name in names if "secret" in name or name.startswith(("/", ".."))]
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {member.mode & 0o002 for member in archive} == {0}


def test_artifacts_that_were_cut_off_are_installed_anew(image: Image, builder_root: Path) -> None:
    image.upload(requirements_0txt=f"{SIX}\n")
    image.assemble()
    following, _ = again(image, builder_root, cached=True)
    for part in bales.parts(following.places.artifacts):
        os.truncate(part, 3000)
    following.upload(requirements_0txt=f"{SIX}\n")
    assert "put back" not in following.assemble().stderr
    assert following.python("import six; print(six.__version__)") == "1.16.0"
    assert not (following.places.app_root / ".cache").exists()
