"""What repositories ask for. Each case is a folder in tests/repos that can be opened and read.

Beside a good one stands NAME.json with what its Spec must hold, beside a bad one (in tests/repos/bad) stands
NAME.expected with lines that its error must hold. In a .json, {root} is the folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ipython_builder import spec
from ipython_builder.errors import RepositoryError, UsageError
from ipython_builder.spec import conda, conda_names, lines, requirements
from ipython_builder.spec.files import MAX_BYTES, Tree
from ipython_builder.spec.model import Asked, Where

REPOS = Path(__file__).parent / "repos"
GOOD = sorted(path.stem for path in REPOS.glob("*.json"))
BAD = sorted(path.stem for path in (REPOS / "bad").glob("*.expected"))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, spec.Notice | spec.Pool):
        return {name: _plain(one) for name, one in vars(value).items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


@pytest.mark.parametrize("name", GOOD)
def test_good_repository(name: str) -> None:
    root = REPOS / name
    expected = json.loads((REPOS / f"{name}.json").read_text().replace("{root}", str(root)))
    got = spec.read(root)
    assert {key: _plain(getattr(got, key)) for key in expected} == expected


@pytest.mark.parametrize("name", BAD)
def test_bad_repository(name: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        spec.read(REPOS / "bad" / name)
    said = f"{caught.value.message}\n{caught.value.hint}"
    for line in (REPOS / "bad" / f"{name}.expected").read_text().splitlines():
        assert line in said
    assert caught.value.hint, "an error names the next step"


def test_every_case_is_a_folder_and_every_folder_a_case() -> None:
    assert GOOD
    assert {path.name for path in (REPOS / "bad").iterdir() if path.is_dir()} == set(BAD)
    assert set(GOOD) <= {path.name for path in REPOS.iterdir() if path.is_dir()}


def test_nothing_of_a_repository_was_executed() -> None:
    for name in GOOD:
        spec.read(REPOS / name)
    assert not [str(path) for path in REPOS.rglob("was-executed")]
    assert not Path("was-executed").exists()


# -- what a folder under git cannot hold --------------------------------------------------------------------


def test_checkpoints_environments_and_links_outside_are_no_notebooks(tmp_path: Path) -> None:
    outside = tmp_path / "outside.ipynb"
    outside.write_text('{"cells": []}')
    root = tmp_path / "repo"
    for name in (
        "a.ipynb",
        ".ipynb_checkpoints/a-checkpoint.ipynb",
        "env/lib/x.ipynb",
        "node_modules/y.ipynb",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('{"cells": []}')
    (root / "env" / "pyvenv.cfg").touch()
    (root / "link.ipynb").symlink_to(outside)
    (root / "again.ipynb").symlink_to("a.ipynb")
    assert spec.read(root).notebooks == ("a.ipynb", "again.ipynb")


def test_a_name_that_cannot_be_shown(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ipynb")).write_text('{"cells": []}')
    got = spec.read(tmp_path)
    assert got.notebooks == ()
    assert "rename it" in got.notices[0].message
    assert got.notices[0].file.isascii()


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RepositoryError, match=r"requirements\.txt is larger than 10 MB"):
        spec.read(tmp_path)


def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")
    with pytest.raises(RepositoryError, match="not a plain file"):
        spec.read(tmp_path)


def test_a_link_that_leads_nowhere_or_round(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").symlink_to("requirements.txt")
    with pytest.raises(RepositoryError, match=r"requirements\.txt"):
        spec.read(tmp_path)
    (tmp_path / "requirements.txt").unlink()
    (tmp_path / "requirements.txt").symlink_to("gone.txt")
    with pytest.raises(RepositoryError, match=r"requirements\.txt"):
        spec.read(tmp_path)


def test_files_that_nest_deeply(tmp_path: Path) -> None:
    for name, text in (("pyproject.toml", "a = " + "[" * 20_000), ("environment.yml", "[" * 20_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(RepositoryError, match=name.replace(".", r"\.")):
            spec.read(tmp_path)
        (tmp_path / name).unlink()


def test_no_such_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not there"):
        spec.read(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="is not a folder"):
        spec.read(tmp_path / "file")


# -- the caller's own lines ---------------------------------------------------------------------------------


def test_extra_lines_are_added_and_unlock() -> None:
    plain = spec.read(REPOS / "requirements-hashed")
    more = spec.read(REPOS / "requirements-hashed", extra=["Tabulate >= 0.9"])
    assert plain.hashed
    assert not more.hashed
    assert more.lines == (*plain.lines, "tabulate>=0.9")


@pytest.mark.parametrize("text", ["numpy=1", "-r /etc/passwd", "", "${HOME}", "ipyparallel<8", "a\nb"])
def test_extra_lines_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match="--with"):
        spec.read(REPOS / "bare", extra=[text])


def test_a_spec_as_a_requirements_file() -> None:
    got = spec.read(REPOS / "requirements-options")
    assert got.requirements_txt().splitlines()[0] == "--no-binary numpy"
    assert got.requirements_txt().splitlines()[-1] == "numpy"
    assert {field.name for field in fields(got)} >= {"lines", "hashed", "python", "notices"}


# -- requirements: properties -------------------------------------------------------------------------------

_NAME = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
_VERSION = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True)
_LINE = st.builds(
    lambda name, extras, operator, version, marker: (
        name + (f"[{','.join(extras)}]" if extras else "") + (operator + version if operator else "") + marker
    ),
    _NAME.filter(lambda name: name.lower() != "ipyparallel"),
    st.lists(_NAME, max_size=2),
    st.sampled_from(["", "==", ">=", "<", "!="]),
    _VERSION,
    st.sampled_from(["", " ; python_version >= '3.9'", "; sys_platform == 'linux'"]),
)


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("-r\0")
@example("--index-url")
@example("-e")
@example("[")
@example("a @ file:")
@example("a @ git+https://[::1")
@example("x ; " + "(" * 5000)
@example("-r " + "a/" * 5000)
@example("./" + "a" * 5000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        requirements.read_text(Asked(), Tree(REPOS / "bare"), text, "requirements.txt")
    except RepositoryError as error:
        assert error.message  # noqa: PT017 - it may be read, too


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary())
@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml", "environment.yml", "Pipfile.lock"])
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    try:
        spec.read(tmp_path)
    except RepositoryError as error:
        assert name in error.message  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(st.lists(_LINE, min_size=1, max_size=5))
def test_what_was_read_reads_the_same_again(texts: list[str]) -> None:
    tree, once, twice = Tree(REPOS / "bare"), Asked(), Asked()
    requirements.read_text(once, tree, "\n".join(texts), "requirements.txt")
    requirements.read_text(twice, tree, "\n".join(once.lines), "requirements.txt")
    assert once.lines == twice.lines
    assert len(once.lines) <= len(texts)


# -- conda --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("=1.26", "==1.26.*"),
        ("=1.26.*", "==1.26.*"),
        ("==1.26", "==1.26"),
        (" 1.26", "==1.26"),
        (" 1.26.*", "==1.26.*"),
        ("=1.26.4=py311h64a7726_0", "==1.26.4"),
        (" 1.26.4 py311h64a7726_0", "==1.26.4"),
        (">=1.20,<2", "<2,>=1.20"),
        (" >=1.20, <2", "<2,>=1.20"),
        (">=1.20.*", ">=1.20"),
        ("!=1.3", "!=1.3"),
        ("*", ""),
    ],
)
def test_conda_versions(text: str, expected: str) -> None:
    assert conda.versions(text, Where("environment.yml"), text) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "gcc",
            "r-base",
            "r-ggplot2",
            "nodejs",
            "cudatoolkit",
            "cuda-nvcc",
            "mkl",
            "libgdal",
            "ffmpeg",
            "openssl",
        ),
        *(
            "_libgcc_mutex",
            "ld_impl_linux-64",
            "gxx_linux-64",
            "xorg-libx11",
            "libstdcxx-ng",
            "bioconductor-limma",
        ),
    ],
)
def test_only_conda_has_it(name: str) -> None:
    assert conda_names.on_pypi(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numpy", "numpy"),
        ("pytorch", "torch"),
        ("python-graphviz", "graphviz"),
        ("rpy2", "rpy2"),
        ("pytables", "tables"),
        ("libpysal", "libpysal"),
        ("librosa", "librosa"),
        ("gcsfs", "gcsfs"),
        ("fonttools", "fonttools"),
        ("cudf", "cudf"),
        ("mpi4py", "mpi4py"),
        ("cmake", "cmake"),
    ],
)
def test_the_index_has_it(name: str, expected: str) -> None:
    assert conda_names.on_pypi(name) == expected


def test_a_channel_of_its_own_is_not_the_index() -> None:
    assert conda_names.on_pypi("pysam", "bioconda") is None
    assert conda_names.on_pypi("pytorch", "pytorch") == "torch"
    assert conda_names.on_pypi("numpy", "conda-forge") == "numpy"


# -- single lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("ipyparallel", True),
        ("ipyparallel==8.6.1", True),
        ("ipyparallel~=8.4", True),
        ("ipyparallel>=6", True),
        ("ipyparallel<9", True),
        ("ipyparallel==9.*", True),
        ("ipyparallel<8 ; python_version < '3'", True),
        ("ipyparallel==6.3.0", False),
        ("ipyparallel<8", False),
        ("ipyparallel==7.*", False),
    ],
)
def test_an_ipyparallel_that_a_cluster_can_use(text: str, allowed: bool) -> None:
    asked = Asked()
    if allowed:
        lines.add(asked, Tree(REPOS / "bare"), text, Where("requirements.txt", 1))
        assert asked.names == ["ipyparallel"] or "python" in text
    else:
        with pytest.raises(RepositoryError, match="rules out every ipyparallel"):
            lines.add(asked, Tree(REPOS / "bare"), text, Where("requirements.txt", 1))


def test_a_password_in_the_repository_is_not_repeated() -> None:
    with pytest.raises(RepositoryError) as caught:
        lines.parse(
            Tree(REPOS / "bare"), "x @ svn+https://me:hunter2@host.example/x", Where("requirements.txt", 1)
        )
    assert "hunter2" not in caught.value.message


# -- .ipython-builder.toml in the folder that is used, and in the root above it -----------------------


def _course(root: Path) -> Path:
    course = root / "teaching" / "course"
    course.mkdir(parents=True)
    for name in ("one.ipynb", "two.ipynb", "../../other.ipynb"):
        (course / name).write_text('{"cells": []}')
    return course


def test_a_folder_in_the_repository_may_name_files_above_it(tmp_path: Path) -> None:
    course = tmp_path / "repository" / "course"
    (course.parent / "lib").mkdir(parents=True)
    course.mkdir()
    (course.parent / "lib" / "pyproject.toml").write_text('[project]\nname = "lib"\nversion = "1"\n')
    (course.parent / "base.txt").write_text("six\n-r more/more.txt\n")
    (course.parent / "more").mkdir()
    (course.parent / "more" / "more.txt").write_text("idna\n")
    (course / "requirements.txt").write_text("-r ../base.txt\n../lib\n")
    found = spec.read(course, top=course.parent)
    assert found.lines == ("six", "idna", f"lib @ {(course.parent / 'lib').as_uri()}")
    with pytest.raises(RepositoryError, match="leads out of the checkout"):
        spec.read(course)
    (tmp_path / "secret.txt").write_text("six\n")
    (course / "requirements.txt").write_text("-r ../../secret.txt\n")
    with pytest.raises(RepositoryError, match="leads out of the checkout"):
        spec.read(course, top=course.parent)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("six @ https://me:s3cret@host/six-1-py3-none-any.whl", True),
        ("six @ git+https://t0ken@host/six.git", True),
        ("git+ssh://git:s3cret@host/six.git", True),
        ("six @ git+ssh://git@host/six.git", False),
        ("six @ https://host/six-1-py3-none-any.whl", False),
    ],
)
def test_a_login_in_an_extra_line_is_refused(text: str, refused: bool, tmp_path: Path) -> None:
    if not refused:
        assert spec.read(tmp_path, extra=[text]).lines
        return
    with pytest.raises(UsageError) as caught:
        spec.read(tmp_path, extra=[text])
    assert "s3cret" not in caught.value.message
    assert "t0ken" not in caught.value.message
    assert "netrc" in (caught.value.hint or "")


def test_the_roots_settings_count_for_a_folder_without_any(tmp_path: Path) -> None:
    course = _course(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    (tmp_path / ".ipython-builder.toml").write_text(
        'requirements = ["./lib"]\npython = "3.12"\nnotebooks = ["teaching/*/one*", "other*"]\n'
        '[pool]\npreload = ["numpy"]\n'
    )
    got = spec.read(course, top=tmp_path)
    assert got.names == ("mine",)
    assert got.notebooks == ("one.ipynb",)
    assert got.python_from == got.pool.file == "../../.ipython-builder.toml"
    assert got.pool.preload == ("numpy",)
    assert got.notices == ()
    assert spec.read(course).pool == spec.Pool(), "what is above is not looked for unasked"
    assert spec.read(tmp_path, top=tmp_path).pool.file == ".ipython-builder.toml"


def test_the_folders_own_settings_count_alone(tmp_path: Path) -> None:
    course = _course(tmp_path)
    (tmp_path / ".ipython-builder.toml").write_text("this is [ no TOML")
    (course / ".ipython-builder.toml").write_text("[pool]\nfork = false\n")
    got = spec.read(course, top=tmp_path)
    assert not got.pool.fork
    assert got.notebooks == ("one.ipynb", "two.ipynb")


@pytest.mark.parametrize(
    "text",
    ["this is [ no TOML", "colour = 1", "[pool]\ntimeout = 0", "requirements = ['../x']", "python = 3"],
)
def test_errors_in_the_roots_settings_say_where(tmp_path: Path, text: str) -> None:
    course = _course(tmp_path)
    (tmp_path / ".ipython-builder.toml").write_text(text)
    with pytest.raises(RepositoryError, match=r"\.\./\.\./\.ipython-builder\.toml"):
        spec.read(course, top=tmp_path)
