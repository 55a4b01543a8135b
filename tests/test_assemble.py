"""Assemble below another root, with the real uv: what an image holds, what is not touched, what a log ends with."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from ipython_builder.build import bill, environment
from ipython_builder.errors import BuilderError
from ipython_builder.events import Reporter
from ipython_builder.places import Places
from tests.conftest import Cli, Home, Said
from tests.packages import uv
from tests.root import CLOSED, Image, notebook
from tests.workbench import git

pytestmark = pytest.mark.slow

SIX = "six==1.16.0"


@pytest.fixture
def image(builder_root: Path, cli: Cli, tmp_path: Path) -> Image:
    return Image(tmp_path / "image", cli, builder_root)


def test_the_environment_of_a_builder(builder_root: Path, cli: Cli, tmp_path: Path) -> None:
    image = Image(tmp_path / "image", cli, builder_root)
    assert image.python("import ipykernel, ipyparallel, ipython_cluster, pip; print('ok')") == "ok"
    assert image.places.base_lock.read_bytes() == image.places.lock.read_bytes()
    assert set(os.listdir(image.places.app_root)) == {
        *("bin", "etc", "lib", "lib64", "pyvenv.cfg", "share", "src", "state"),
    }
    entries = bill.parse(image.places.base_lock.read_text())
    assert entries["ipykernel"].hashes
    assert entries["ipython-cluster"].remark
    modes = {
        (stat.S_IFMT(path.lstat().st_mode), stat.S_IMODE(path.lstat().st_mode))
        for path in image.places.app_root.rglob("*")
        if not path.is_symlink()
    }
    assert modes == {(stat.S_IFREG, 0o664), (stat.S_IFREG, 0o775), (stat.S_IFDIR, 0o775)}


def test_a_repository_over_a_builder(image: Image) -> None:
    before = image.marks()
    image.upload(
        requirements_0txt=f"{SIX}\nipykernel\n",
        lesson__one_0ipynb=notebook("import six, colorsys, numpy"),
        _0git__HEAD="ref: refs/heads/main\n",
        helpers_0py="x = 1\n",
    )
    said = image.assemble(env={"OPENSHIFT_BUILD_SOURCE": "https://me:hunter2@host/nb.git"})
    after = image.marks()
    written = {name for name, mark in before.items() if after.get(name) != mark}
    # What the builder had is as it was, byte for byte and file for file.
    assert {name.rpartition("/")[2] for name in written} == {
        *("requirements.lock", "sbom.cdx.json", "environment.json", "image.json"),
    }
    assert image.python("import six; print(six.__version__)") == "1.16.0"
    assert list(image.packages.glob("__pycache__/six.*.pyc"))
    assert (image.places.source / "lesson/one.ipynb").is_file()
    assert (image.places.source / "helpers.py").stat().st_mode & 0o777 == 0o664
    assert not (image.places.source / ".git").exists()
    assert not image.places.upload.exists()
    assert not (image.places.app_root / ".cache").exists()
    facts = json.loads(image.places.facts.read_text())
    assert facts["preload"] == ["six", "numpy"]
    assert facts["notebooks"] == ["lesson/one.ipynb"]
    assert facts["source"] == "https://***@host/nb.git"
    assert (
        "nothing provides numpy, which lesson/one.ipynb imports: add numpy to the requirements" in said.stderr
    )
    assert said.stdout == ""
    entry = bill.parse(image.places.lock.read_text())["six"]
    assert len(entry.hashes) == 2
    assert '"pkg:pypi/six@1.16.0"' in image.places.bill.read_text()
    # An installer takes the lock as it is, and finds everything there.
    checked = subprocess.run(
        [uv(), "pip", "install", "--dry-run", "--offline", "--require-hashes", "--no-deps", "--python",
         image.places.app_root / "bin/python", "-r", image.places.lock], capture_output=True, text=True,
    )  # fmt: skip
    assert "Would make no changes" in checked.stderr, checked.stderr


def test_the_same_repository_is_the_same_bytes(builder_root: Path, cli: Cli, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        image = Image(tmp_path / "here", cli, builder_root)
        upload_with_package(image)
        image.assemble()
        image.root.rename(tmp_path / name)
        made.append(Path(tmp_path / name, "opt/app-root"))
    one, two = ({str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in made)
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


PROJECT = """\
[build-system]
requires = ["flit_core>=3.11,<4"]
build-backend = "flit_core.buildapi"
[project]
name = "helpers"
version = "1.0"
description = "of a test"
"""


def upload_with_package(image: Image, answer: int = 41) -> None:
    image.upload(requirements_0txt=f"{SIX}\n./helpers\n", helpers__pyproject_0toml=PROJECT)
    package = image.places.upload / "helpers/helpers"
    package.mkdir()
    (package / "__init__.py").write_text(f"answer = {answer}\n")


def test_a_package_of_the_repository(image: Image) -> None:
    upload_with_package(image)
    image.assemble()
    assert image.python("import helpers; print(helpers.answer)") == "41"
    assert "# helpers==1.0: made from the repository/helpers" in image.places.lock.read_text()
    assert not list(image.packages.glob("*/uv_cache.json"))
    # An image is a builder too: what changed is built anew, although its version did not change.
    upload_with_package(image, 42)
    image.assemble()
    assert image.python("import helpers; print(helpers.answer)") == "42"


def test_a_lock_and_a_line_of_git(image: Image, tmp_path: Path) -> None:
    repository = tmp_path / "helpers.git"
    (repository / "helpers").mkdir(parents=True)
    (repository / "pyproject.toml").write_text(PROJECT)
    (repository / "helpers" / "__init__.py").write_text("answer = 41\n")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    commit = git(repository, "rev-parse", "HEAD")
    hashes = (
        "1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926",
        "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254",
    )
    image.upload(requirements_0txt=f"{SIX} --hash=sha256:{hashes[1]}\n")
    image.assemble()
    # What the repository says of it is enough.
    assert bill.parse(image.places.lock.read_text())["six"].hashes == (f"sha256:{hashes[1]}",)
    image.upload(requirements_0txt=f"{SIX}\nhelpers @ git+file://{repository}@main\n")
    image.assemble()
    assert image.python("import helpers; print(helpers.answer)") == "41"
    lock = image.places.lock.read_text()
    assert f"# helpers==1.0: made from git+file://{repository}@{commit}\n" in lock


def test_what_does_not_go_together_is_said(image: Image, tmp_path: Path) -> None:
    lines = tmp_path / "more.txt"
    lines.write_text("sympy==1.14.0\n")
    image.assemble("--base", "--requirements", str(lines))
    image.upload(requirements_0txt="mpmath==1.4.0\n")
    said = image.assemble()
    assert "`sympy` requires `mpmath>=1.1.0,<1.4`, but `1.4.0` is installed" in said.stderr
    assert "with sympy among the requirements, versions that go together are chosen" in said.stderr


def test_what_the_disk_refuses_is_an_error_of_ours(tmp_path: Path, home: Home) -> None:
    places = Places(tmp_path / "image")
    places.app_root.mkdir(parents=True)
    with (
        pytest.raises(BuilderError, match="cannot be written: No space left") as caught,
        environment.opened(places, home.settings, Reporter()),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")
    assert "free some space" in (caught.value.hint or "")
    assert list(places.app_root.iterdir()) == []
    places.app_root.rmdir()
    places.app_root.write_text("a file")
    with (
        pytest.raises(BuilderError, match="cannot be written"),
        environment.opened(places, home.settings, Reporter()),
    ):
        pass


def test_what_the_builder_has_needs_no_index(builder_root: Path, cli: Cli, tmp_path: Path) -> None:
    for number, files in enumerate(({}, {"requirements_0txt": "ipykernel>=6\ntraitlets\n"})):
        image = Image(tmp_path / f"image{number}", cli, builder_root, cached=False)
        before = image.marks()
        image.upload(one_0ipynb=notebook("1"), **files)
        assert "nothing to install" in image.assemble(index=CLOSED).stderr
        after = image.marks()
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert {name for name in changed if not name.startswith(("src/", "etc/"))} == set()


def test_another_version_than_the_builders(image: Image) -> None:
    image.upload(requirements_0txt="decorator==5.2.0\n")
    image.assemble()
    assert image.python("import importlib.metadata as m; print(m.version('decorator'))") == "5.2.0"
    assert len(list(image.packages.glob("decorator-*.dist-info"))) == 1


# -- hooks ---------------------------------------------------------------------------------------

SPY = "#!/bin/sh\necho this is $0 in $PWD\necho and this is stderr >&2\nenv > {}\n"


def test_hooks_run_before_and_after(image: Image, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('extra_index_urls = ["http://me:hunter2@127.0.0.1:9/simple"]\n')
    image.upload(
        requirements_0txt="traitlets\n",
        _0ipython_1builder__pre_1build=SPY.format(tmp_path / "pre"),
        _0ipython_1builder__post_1build=SPY.format(tmp_path / "post") + f"uv pip install {SIX}\n",
    )
    env = {"MY_TOKEN": "hunter2", "IPYTHON_BUILDER_CONFIG": str(config)}
    env["PATH"] = f"{Path(uv()).parent}:{os.environ['PATH']}"
    said = image.assemble(env=env)
    lines = [line.strip() for line in said.stderr.splitlines()]
    assert f"this is {image.places.upload}/.ipython-builder/pre-build in {image.places.upload}" in lines
    assert f"this is {image.places.source}/.ipython-builder/post-build in {image.places.source}" in lines
    assert lines.count("and this is stderr") == 2
    for name in ("pre", "post"):
        told = (tmp_path / name).read_text()
        assert "hunter2" not in told
        assert "config.toml" not in told
        assert f"PATH={image.places.app_root}/bin:" in told
    assert "hunter2" not in said.stderr
    # What a hook installs is installed; its hash is not known, because the index of this test says nothing.
    assert bill.parse(image.places.lock.read_text())["six"].pin == SIX
    assert "requirements.lock has no hash of six==1.16.0" in said.stderr
    assert '"pkg:pypi/six@1.16.0"' in image.places.bill.read_text()


# -- in two steps --------------------------------------------------------------------------------


def test_dependencies_and_source_apart(image: Image, tmp_path: Path) -> None:
    from ipython_builder import spec
    from ipython_builder.build import request

    upload_with_package(image)
    image.places.upload.rename(tmp_path / "repository")
    request.dump(spec.read(tmp_path / "repository"), image.places.upload)
    image.assemble("--dependencies")
    assert image.python("import six, helpers; print(helpers.answer)") == "41"
    assert not image.places.upload.exists()
    assert os.listdir(image.places.source) == []
    lock = image.places.lock.read_bytes()
    (image.places.source / ".ipython-builder").mkdir()
    hook = image.places.source / ".ipython-builder/post-build"
    hook.write_text("#!/bin/sh\ntouch made\n")
    image.assemble("--source", index=CLOSED)
    assert (image.places.source / "made").exists()
    assert image.places.lock.read_bytes() == lock


def test_a_builder_on_top_of_a_builder(image: Image, tmp_path: Path) -> None:
    lines = tmp_path / "more.txt"
    lines.write_text(f"{SIX}\n")
    image.assemble("--base", "--requirements", str(lines))
    assert "six==1.16.0" in image.places.base_lock.read_text()
    image.upload(requirements_0txt="six\n")
    assert "nothing to install" in image.assemble(index=CLOSED).stderr


# -- what a log ends with ------------------------------------------------------------------------


def failed(image: Image, code: int, index: str | None = None) -> list[str]:
    """The last lines of a failure: what, and what next."""
    said: Said = image.s2i("assemble", index=index)
    assert said.rc == code, said.stderr
    lines = said.stderr.splitlines()
    assert lines[-1].startswith(" next: "), said.stderr
    assert any(line.startswith("error: ") for line in lines)
    assert "Traceback" not in said.stderr
    assert not (image.places.app_root / ".cache").exists()
    return lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("six==1.16.0\nsix==1.15.0\n", "cannot be had together"),
        ("ipykernel<6\n", "exclude each other"),
        ("no-such-distribution-ipb\n", "no-such-distribution-ipb"),
        ("six==1.16.0 --hash=sha256:" + "0" * 64 + "\n", "not the one that was locked"),
        ("six==\n", "requirements.txt:1"),
    ],
    ids=["conflict", "runtime", "missing", "hash", "syntax"],
)
def test_requirements_that_cannot_be(image: Image, text: str, words: str) -> None:
    image.upload(requirements_0txt=text)
    assert words in "\n".join(failed(image, 3))


def test_a_hash_that_the_builders_own_copy_does_not_have(image: Image) -> None:
    entry = bill.parse(image.places.base_lock.read_text())["decorator"]
    image.upload(requirements_0txt=f"{entry.pin} --hash=sha256:{'0' * 64}\n")
    assert "not the one that was locked" in "\n".join(failed(image, 3))


def test_another_python(image: Image) -> None:
    image.upload(runtime_0txt="python-3.9\n")
    assert any(
        "runtime.txt asks for Python ==3.9.*; this builder image has 3." in x for x in failed(image, 3)
    )


def test_an_index_that_is_not_there(builder_root: Path, cli: Cli, tmp_path: Path) -> None:
    image = Image(tmp_path / "image", cli, builder_root, cached=False)
    image.upload(requirements_0txt=f"{SIX}\n")
    assert any("cannot be reached" in line for line in failed(image, 69, CLOSED))


def test_nothing_was_uploaded(image: Image) -> None:
    assert any("there is nothing in" in line for line in failed(image, 3))


@pytest.mark.parametrize("name", ["pre_1build", "post_1build"])
def test_a_hook_that_fails(image: Image, name: str) -> None:
    image.upload(**{f"_0ipython_1builder__{name}": "#!/bin/sh\necho no such data\nexit 7\n"})
    lines = failed(image, 1)
    assert "  no such data" in lines
    assert lines[-2].startswith(f"error: .ipython-builder/{name.replace('_1', '-')} ended with 7")


def test_no_environment_at_all(cli: Cli, tmp_path: Path) -> None:
    image = Image(tmp_path / "image", cli, cached=False)
    image.upload(requirements_0txt=f"{SIX}\n")
    assert any("there is no environment in" in line for line in failed(image, 1))


def test_what_is_only_said(image: Image) -> None:
    image.upload(broken_0ipynb="{", apt_0txt="graphviz\n", requirements_0txt="traitlets\n")
    said = image.assemble()
    assert "! broken.ipynb: it is not JSON" in said.stderr
    assert "FROM ipython-builder" in said.stderr
    assert (image.places.source / "broken.ipynb").read_text() == "{"


def test_options_that_exclude_each_other(image: Image) -> None:
    assert image.s2i("assemble", "--base", "--source").rc == 2
    assert image.s2i("assemble", "--requirements", "/etc/hostname").rc == 2
