"""Settings: flags over environment over file over defaults, as one frozen object.

The file is ``~/.config/ipython-builder/config.toml`` (``$IPYTHON_BUILDER_CONFIG`` names another).
Every key of `Settings` may stand in it; each has an environment variable ``IPYTHON_BUILDER_<KEY>``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ipython_builder.errors import UsageError

APP = "ipython-builder"


@dataclass(frozen=True)
class Settings:
    """What holds for every command of one invocation.

    Attributes:
        cache_dir: environments and the package cache; may be deleted when no cluster runs.
        state_dir: one folder a cluster: key, password, record, logs.
        data_dir: working copies cloned from URLs.
        index_url, extra_index_urls: package indexes; credentials in them never leave this object in a log.
        ca_bundle: a PEM file that replaces the system's authorities for packages and git.
        python: an interpreter to prefer, as a path or a version such as 3.12.
        viewer_host: the address the viewer listens on.
    """

    cache_dir: Path
    state_dir: Path
    data_dir: Path
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    python: str | None = None
    viewer_host: str = "127.0.0.1"

    def with_flags(self, **flags: Any) -> Settings:
        """A copy in which every flag that was given (is not None) wins."""
        return replace(self, **{k: v for k, v in flags.items() if v is not None})


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read environment and file.

    Raises:
        UsageError: the file is not TOML, or has a key or a value that is not known.
    """
    environ = os.environ if environ is None else environ
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise UsageError(
            "this user has no home folder", "set HOME to a folder that can be written to"
        ) from error

    def base(variable: str, default: str) -> Path:
        # Like platformdirs on Linux; spelled out because the import costs a tenth of `--help`.
        value = environ.get(variable, "")
        return (Path(value) if value.startswith("/") else home / default) / APP

    path = Path(environ.get("IPYTHON_BUILDER_CONFIG") or base("XDG_CONFIG_HOME", ".config") / "config.toml")
    values: dict[str, Any] = {
        "cache_dir": base("XDG_CACHE_HOME", ".cache"),
        "state_dir": base("XDG_STATE_HOME", ".local/state"),
        "data_dir": base("XDG_DATA_HOME", ".local/share"),
    }
    # What other tools already know about the index and the authorities holds here too; ours is asked first.
    for key, names in {
        "index_url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
        "extra_index_urls": ("UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
        "ca_bundle": ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"),
    }.items():
        for name in names:
            if environ.get(name):
                values[key] = environ[name]
                break
    values.update(_read_file(path))
    for field in fields(Settings):
        value = environ.get(f"IPYTHON_BUILDER_{field.name.upper()}")
        if value:
            values[field.name] = value
    return Settings(**{key: _typed(key, value, path) for key, value in values.items()})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "mend or remove the file") from error
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"{path} has unknown keys: {', '.join(unknown)}", f"known are {', '.join(sorted(known))}"
        )
    return values


def _typed(key: str, value: Any, path: Path) -> Any:
    if key.endswith("_dir") or key == "ca_bundle":
        if isinstance(value, Path):
            return value
        if not isinstance(value, str):
            raise UsageError(f"{key} in {path} must be a path")
        return Path(value).expanduser().absolute()  # the steps of an installation run in other folders
    if key == "extra_index_urls":
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{key} in {path} must be a list of URLs")
        return tuple(words)
    if not isinstance(value, str):
        raise UsageError(f"{key} in {path} must be a text")
    return value
