"""A Spec as uv is told it, and what uv says when it fails in our words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipython_builder import asking, failures
from ipython_builder.commands import Result
from ipython_builder.errors import BuilderError, RepositoryError, Unavailable
from ipython_builder.spec import Spec

ROOT = Path("/repository")
HASH = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def test_a_lock_has_its_hashed_lines_and_the_rest_is_open() -> None:
    spec = Spec(ROOT, kind="requirements-hashed", lines=(f"six==1.16 --hash={HASH}", "tabulate", "idna<4"))
    assert asking.locked(spec) == [f"six==1.16 --hash={HASH}"]
    assert asking.still_open(spec) == ["idna<4", "tabulate"]
    assert list(asking.bounds(spec)) == ["six==1.16"]


def test_some_hashes_make_no_lock_but_are_checked() -> None:
    lines = (f"Six.Thing==1.16 --hash={HASH} --hash={OTHER}", "idna==3.7", f"foo[bar]>=1 --hash={OTHER}")
    spec = Spec(ROOT, kind="requirements", lines=lines)
    assert asking.locked(spec) == []
    assert list(asking.bounds(spec)) == []
    pins = "foo==1.2\nidna==3.7\nsix-thing==1.16\nurl @ https://host/url.whl\n"
    assert list(asking.with_hashes(pins, spec)) == [
        f"foo==1.2 --hash={OTHER}",
        "idna==3.7",
        f"six-thing==1.16 --hash={HASH} --hash={OTHER}",
        "url @ https://host/url.whl",
    ]


def test_what_a_lock_says_binds_the_rest() -> None:
    lines = (
        f"zmq[x,y]==2.0 ; python_version < '3.12' --hash={HASH}",
        f"a @ https://host/a-1.whl --hash={HASH}",
        f"https://host/nameless-1-py3-none-any.whl --hash={HASH}",
    )
    spec = Spec(ROOT, kind="uv.lock", lines=lines)
    assert list(asking.bounds(spec)) == [
        "a @ https://host/a-1.whl",
        'zmq==2.0 ; python_version < "3.12"',
    ]


def test_a_pylock_binds_the_rest_too(tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "six"\nversion = "1.16.0"\n'
        '[[packages]]\nname = "old"\nversion = "1"\nmarker = "python_version < \'3\'"\n'
        '[[packages]]\nname = "here"\ndirectory = {path = "."}\n'
    )
    spec = Spec(ROOT, kind="pylock.toml", pylock=tmp_path / "pylock.toml", lines=("tabulate",))
    assert list(asking.bounds(spec)) == ["six==1.16.0", "old==1 ; python_version < '3'"]
    assert asking.still_open(spec) == ["tabulate"]


def test_where_packages_come_from() -> None:
    spec = Spec(ROOT, options=("--no-binary numpy", "--no-index"), find_links=("file:///repository/w",))
    assert asking.options(spec) == [
        "--no-binary numpy",
        "--no-index",
        "--find-links file:///repository/w",
    ]
    assert asking.flags(spec) == []
    spec = Spec(ROOT, index_urls=("https://a/simple", "https://b/simple"), prereleases=True)
    assert asking.flags(spec) == [
        *("--extra-index-url", "https://a/simple", "--extra-index-url", "https://b/simple"),
        *("--index-strategy", "unsafe-best-match", "--prerelease=allow"),
    ]


def test_local_folders_are_built_anew() -> None:
    pins = (
        "a==1\nhelpers @ file:///repository\nmore[x] @ file:///repository/more\ngit @ git+https://h/r@abc\n"
    )
    assert asking.built_anew(pins) == ["--refresh-package", "helpers", "--refresh-package", "more"]


# -- failures ------------------------------------------------------------------------------------

NOTHING_FITS = (
    "  × No solution found when resolving dependencies:\n  ╰─▶ Because only six<=1.17 is available …"
)


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (NOTHING_FITS, RepositoryError, "cannot be had together (asked for by requirements.txt)"),
        (f"{NOTHING_FITS}\nhint: not queried: (401 Unauthorized)", Unavailable, "refuses us"),
        (f"{NOTHING_FITS}\nhint: error sending request for url", Unavailable, "cannot be reached"),
        ("error: Failed to fetch: `https://h/s`\n  Caused by: dns error", Unavailable, "cannot be reached"),
        ("error: invalid peer certificate: UnknownIssuer", Unavailable, "cannot be reached"),
        ("error: Failed to fetch\n  Caused by: 403 Forbidden", Unavailable, "refuses us"),
        ("error: Hash mismatch for `six==1.16.0`", RepositoryError, "not the one that was locked"),
        ("error: In `--require-hashes` mode, all requirements must have a hash", RepositoryError, "locked"),
        ("error: failed to write: No space left on device (os error 28)", BuilderError, "is full"),
        ("error: failed to open /cache/uv/x: Permission denied (os error 13)", BuilderError, "written to"),
        ("error: failed to open /cache/uv: Read-only file system (os error 30)", BuilderError, "written to"),
        ("error: /elsewhere: Permission denied", RepositoryError, "cannot be installed"),
        ("  × Failed to build `x`\n  ├─▶ no Fortran", RepositoryError, "no Fortran"),
        ("", RepositoryError, "cannot be installed"),
    ],
)
def test_uvs_words_and_ours(said: str, kind: type[BuilderError], message: str) -> None:
    error = failures.explain(Result(("uv",), 1, "", said), "requirements.txt", Path("/cache"))
    assert type(error) is kind
    assert message in error.message
    assert error.hint
    assert "×" not in error.message
    assert "╰" not in error.message


def test_of_many_words_the_last_are_shown() -> None:
    said = "\n".join(f"line {number}" for number in range(1000))
    error = failures.explain(Result(("uv",), 1, "", said), None, Path("/cache"))
    assert "line 999" in error.message
    assert "line 900" not in error.message
    assert len(error.message) < 5000
