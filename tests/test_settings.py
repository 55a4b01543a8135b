"""Flags over environment over file over defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipython_builder import settings
from ipython_builder.errors import UsageError
from ipython_builder.settings import Settings


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(environ: dict[str, str], text: str | bytes) -> Path:
    path = Path(environ["HOME"], ".config", "ipython-builder", "config.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_defaults_are_below_home(tmp_path: Path, environ: dict[str, str]) -> None:
    assert settings.load(environ) == Settings(
        cache_dir=tmp_path / ".cache/ipython-builder",
        state_dir=tmp_path / ".local/state/ipython-builder",
        data_dir=tmp_path / ".local/share/ipython-builder",
    )
    assert settings.load(environ).viewer_host == "127.0.0.1"


def test_xdg_folders_count_when_they_are_absolute(tmp_path: Path, environ: dict[str, str]) -> None:
    environ |= {"XDG_CACHE_HOME": "/big/cache", "XDG_STATE_HOME": "relative", "XDG_DATA_HOME": ""}
    found = settings.load(environ)
    assert found.cache_dir == Path("/big/cache/ipython-builder")
    assert found.state_dir == tmp_path / ".local/state/ipython-builder"
    assert found.data_dir == tmp_path / ".local/share/ipython-builder"


def test_each_level_wins_over_the_one_below(environ: dict[str, str]) -> None:
    environ["PIP_INDEX_URL"] = "https://pip/simple"
    assert settings.load(environ).index_url == "https://pip/simple"
    environ["UV_DEFAULT_INDEX"] = "https://uv/simple"
    assert settings.load(environ).index_url == "https://uv/simple"
    write(environ, 'index_url = "https://file/simple"\npython = "3.12"\n')
    assert settings.load(environ).index_url == "https://file/simple"
    environ["IPYTHON_BUILDER_INDEX_URL"] = "https://ours/simple"
    found = settings.load(environ)
    assert found.index_url == "https://ours/simple"
    assert found.python == "3.12"
    flagged = found.with_flags(index_url="https://flag/simple", python=None)
    assert (flagged.index_url, flagged.python) == ("https://flag/simple", "3.12")
    assert found.index_url == "https://ours/simple"


def test_every_key_can_stand_in_the_file_and_in_the_environment(environ: dict[str, str]) -> None:
    write(
        environ,
        'cache_dir = "/c"\nstate_dir = "/s"\ndata_dir = "~/d"\nindex_url = "https://i"\n'
        'extra_index_urls = ["https://a", "https://b"]\nca_bundle = "/ca.pem"\npython = "3.11"\n'
        'viewer_host = "0.0.0.0"\n',
    )
    from_file = settings.load(environ)
    assert from_file == Settings(
        Path("/c"), Path("/s"), Path("~/d").expanduser(), "https://i", ("https://a", "https://b"),
        Path("/ca.pem"), "3.11", "0.0.0.0",
    )  # fmt: skip
    environ |= {
        "IPYTHON_BUILDER_CACHE_DIR": "/c2", "IPYTHON_BUILDER_STATE_DIR": "/s2",
        "IPYTHON_BUILDER_DATA_DIR": "/d2", "IPYTHON_BUILDER_INDEX_URL": "https://i2",
        "IPYTHON_BUILDER_EXTRA_INDEX_URLS": "https://a2  https://b2", "IPYTHON_BUILDER_CA_BUNDLE": "/ca2.pem",
        "IPYTHON_BUILDER_PYTHON": "3.13", "IPYTHON_BUILDER_VIEWER_HOST": "::1",
    }  # fmt: skip
    assert settings.load(environ) == Settings(
        Path("/c2"), Path("/s2"), Path("/d2"), "https://i2", ("https://a2", "https://b2"),
        Path("/ca2.pem"), "3.13", "::1",
    )  # fmt: skip


def test_what_other_tools_know_of_index_and_authorities_holds_here(environ: dict[str, str]) -> None:
    environ |= {"PIP_EXTRA_INDEX_URL": "https://a https://b", "REQUESTS_CA_BUNDLE": "/ca.pem"}
    found = settings.load(environ)
    assert found.extra_index_urls == ("https://a", "https://b")
    assert found.ca_bundle == Path("/ca.pem")


def test_an_empty_variable_is_none(environ: dict[str, str]) -> None:
    environ |= {"IPYTHON_BUILDER_PYTHON": "", "UV_DEFAULT_INDEX": "", "IPYTHON_BUILDER_CACHE_DIR": ""}
    found = settings.load(environ)
    assert found.python is None
    assert found.index_url is None
    assert found.cache_dir.is_absolute()


def test_another_file_can_be_named(tmp_path: Path, environ: dict[str, str]) -> None:
    write(environ, 'python = "3.11"\n')
    (tmp_path / "other.toml").write_text('python = "3.12"\n')
    environ["IPYTHON_BUILDER_CONFIG"] = str(tmp_path / "other.toml")
    assert settings.load(environ).python == "3.12"


def test_paths_are_absolute_wherever_a_step_runs(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer runs in another folder: a relative path would mean something else there."""
    monkeypatch.chdir(tmp_path)
    environ |= {"IPYTHON_BUILDER_CACHE_DIR": "cache", "IPYTHON_BUILDER_CA_BUNDLE": "./ca.pem"}
    found = settings.load(environ)
    assert found.cache_dir == tmp_path / "cache"
    assert found.ca_bundle == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python = 3.12\n", "python in .* must be a text"),
        ("cache_dir = 3\n", "cache_dir in .* must be a path"),
        ("extra_index_urls = [1]\n", "extra_index_urls in .* must be a list of URLs"),
        ("extra_index_urls = true\n", "extra_index_urls in .* must be a list of URLs"),
        ('pyton = "3.12"\n[index]\nx = 1\n', "unknown keys: index, pyton"),
        ("python = \n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_a_bad_file_is_named(environ: dict[str, str], text: str | bytes, said: str) -> None:
    path = write(environ, text)
    with pytest.raises(UsageError, match=said) as caught:
        settings.load(environ)
    assert str(path) in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["IPYTHON_BUILDER_CONFIG"] = str(tmp_path)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        settings.load(environ)


def test_settings_are_frozen(environ: dict[str, str]) -> None:
    with pytest.raises(AttributeError):
        settings.load(environ).python = "3.12"  # type: ignore[misc]
