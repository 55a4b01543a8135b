"""The files that roles read: private, derived, and of the password only a hash."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from ipython_builder import prepare, record
from ipython_builder.errors import UsageError
from ipython_builder.record import Home, Record


@pytest.fixture
def made(tmp_path: Path) -> tuple[Record, Home]:
    values = {
        "label": "x", "user": "u", "source": "s", "ref": None, "context_dir": None, "commit": None,
        "checkout": str(tmp_path), "in_place": True, "notebooks": str(tmp_path), "environment": "k",
        "environment_path": "/env", "python": "3.13.0", "viewer_environment": "v", "viewer_python": "/v/python",
        "viewer_module": "jupyterlab", "viewer_host": "127.0.0.1", "viewer_port": 8080, "first_port": 10000,
        "engines": 3,
    }  # fmt: skip
    home = Home(tmp_path / "x")
    one = Record(**values)  # type: ignore[arg-type]
    record.save(home, one)
    prepare.secrets_for(home, None)
    return one, home


def test_secrets_are_made_once_and_a_given_password_wins(made: tuple[Record, Home]) -> None:
    _, home = made
    key, password = home.key.read_text(), home.password.read_text()
    prepare.secrets_for(home, None)
    assert (home.key.read_text(), home.password.read_text()) == (key, password)
    prepare.secrets_for(home, "given")
    assert home.password.read_text() == "given\n"
    assert len(password.strip()) >= 20
    for file in (home.key, home.password):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_file_is_its_owners_alone(made: tuple[Record, Home]) -> None:
    one, home = made
    prepare.write_files(one, home)
    for path in home.path.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_viewer_gets_a_hash(made: tuple[Record, Home]) -> None:
    one, home = made
    prepare.secrets_for(home, "correct horse")
    config = prepare.server_config(one, home)
    assert "correct horse" not in json.dumps(config)
    hashed = config["PasswordIdentityProvider"]["hashed_password"]
    assert hashed.startswith("argon2:")
    assert PasswordHasher().verify(hashed.removeprefix("argon2:"), "correct horse")


def test_connection_files_are_what_the_link_says(made: tuple[Record, Home]) -> None:
    one, home = made
    prepare.write_files(one, home)
    client = json.loads((home.security / "ipcontroller-client.json").read_text())
    assert client["interface"] == "tcp://127.0.0.1"
    assert client["registration"] == 10000
    found = json.loads((home.security / prepare.CLUSTER_FILE).read_text())
    assert found["engines"]["sets"]["engines"]["n"] == 3


def test_a_key_that_is_no_key(made: tuple[Record, Home]) -> None:
    one, home = made
    home.key.write_text("short")
    with pytest.raises(UsageError, match="at least 32"):
        prepare.write_files(one, home)
