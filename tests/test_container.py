"""What a container's environment asks for, and what its role finds: below another root than `/`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import container, record, seeding
from ipython_builder.errors import BuilderError, RepositoryError, UsageError
from ipython_builder.places import Places

KEY = "ab" * 32
CLUSTER = {"IPYTHON_CLUSTER_LABEL": "tt", "IPYTHON_CLUSTER_KEY": KEY}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An image with two notebooks."""
    made = Places(tmp_path / "root")
    for folder in (
        made.source / "below",
        made.state,
        made.etc,
        made.app_root / "bin",
        made.root / "run/secrets",
    ):
        folder.mkdir(parents=True)
    (made.app_root / "bin" / "python").symlink_to(sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    (made.app_root / "pyvenv.cfg").write_text(f"home = {sys.prefix}\nversion = {version}\n")
    major = ".".join(map(str, sys.version_info[:2]))
    (made.app_root / f"lib/python{major}/site-packages").mkdir(parents=True)
    (made.source / "one.ipynb").write_text("{}")
    (made.source / "below" / "two.ipynb").write_text("{}")
    return made


def secret(places: Places, name: str, text: str) -> Path:
    path = places.root / "run/secrets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_said_is_a_viewer_of_no_cluster(places: Places) -> None:
    asked = container.read({}, places)
    assert (asked.kind, asked.label, asked.key, asked.password) == ("viewer", None, None, None)
    assert asked.notebooks == places.source
    assert asked.engines == 1
    assert container.read({"IPYTHON_CONTAINER_TYPE": ""}, places).kind == "viewer"


@pytest.mark.parametrize("kind", ["viewer", "controller", "engine"])
def test_the_types(places: Places, kind: str) -> None:
    asked = container.read(CLUSTER | {"IPYTHON_CONTAINER_TYPE": kind}, places)
    assert (asked.kind, asked.label, asked.controller) == (kind, "tt", "ipcontroller-tt")
    elsewhere = {"IPYTHON_CONTROLLER_HOST": "elsewhere.example"}
    assert container.read(CLUSTER | elsewhere, places).controller == "elsewhere.example"


@pytest.mark.parametrize(
    ("env", "words", "hint"),
    [
        ({"IPYTHON_CONTAINER_TYPE": "enigne"}, "IPYTHON_CONTAINER_TYPE=enigne", "did you mean engine?"),
        ({"IPYTHON_CONTAINER_TYPE": "x"}, "no such type", "viewer, controller, engine"),
        ({"IPYTHON_CONTAINER_TYPE": "engine"}, "no cluster label", "IPYTHON_CLUSTER_LABEL"),
        (
            {"IPYTHON_CONTAINER_TYPE": "engine", "IPYTHON_CLUSTER_LABEL": "tt"},
            "no cluster key",
            "run/secrets/ipython-cluster/key",
        ),
        ({"IPYTHON_CLUSTER_LABEL": "T T"}, "IPYTHON_CLUSTER_LABEL", ""),
        ({"IPYTHON_USER_LABEL": "../x"}, "IPYTHON_USER_LABEL", ""),
        ({"IPYTHON_CONTROLLER_HOST": "a b"}, "no host name", ""),
        ({"IPYTHON_CLUSTER_KEY": "short"}, "key", ""),
        ({"IPYTHON_CLUSTER_KEY_FILE": "/nowhere"}, "there is no such file", "mount"),
        ({"IPYTHON_USER_PASSWORD_FILE": "/nowhere"}, "cannot be read", ""),
        ({"IPYTHON_ENGINES": "0"}, "IPYTHON_ENGINES=0", "auto"),
        ({"IPYTHON_ENGINES": "1e3"}, "IPYTHON_ENGINES=1e3", "auto"),
        ({"IPYTHON_GRACE_SECONDS": "-1"}, "IPYTHON_GRACE_SECONDS=-1", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(places: Places, env: dict[str, str], words: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        container.read(env, places)
    assert words in raised.value.message
    assert hint in (raised.value.hint or "")
    assert "short" not in raised.value.message


def test_a_client_needs_nothing(places: Places) -> None:
    assert container.read({"IPYTHON_CONTAINER_TYPE": "engine"}, places, client=True).label is None


def test_where_keys_and_passwords_are_looked_for(places: Places, tmp_path: Path) -> None:
    def key(**env: str) -> bytes | None:
        return container.read(env, places).key

    other = "cd" * 32
    assert key(IPYTHON_CLUSTER_KEY=KEY) == KEY.encode()
    secret(places, "ipython-cluster-key", "")
    assert key(IPYTHON_CLUSTER_KEY=KEY) == KEY.encode(), "an empty file is a place for a key"
    secret(places, "ipython-cluster-key", f"{other}\n")
    assert key(IPYTHON_CLUSTER_KEY=KEY) == f"{other}\n".encode(), "a file comes before a variable"
    secret(places, "ipython-cluster/tls.key", "-----BEGIN PRIVATE KEY-----\n" + "x" * 100)
    assert (key() or b"").startswith(b"-----BEGIN")
    secret(places, "ipython-cluster/key", "ef" * 32)
    assert key() == b"ef" * 32
    named = tmp_path / "named"
    named.write_text("12" * 32)
    assert key(IPYTHON_CLUSTER_KEY_FILE=str(named)) == b"12" * 32
    assert container.read({"IPYTHON_USER_PASSWORD": "p"}, places).password == "p"
    secret(places, "ipython-user-password", "from a file\nand more\n")
    assert container.read({"IPYTHON_USER_PASSWORD": "p"}, places).password == "from a file"


def test_a_key_that_cannot_be_read(places: Places) -> None:
    (places.root / "run/secrets/ipython-cluster-key").mkdir()
    with pytest.raises(UsageError, match="cannot be read") as raised:
        container.read({}, places)
    assert "mode 0440" in (raised.value.hint or "")


def test_a_viewer_alone(places: Places, tmp_path: Path) -> None:
    home, made = container.make(container.read({}, places), tmp_path / "state", places)
    assert home.path.name == container.ALONE
    assert made.roles == ("viewer",)
    assert record.load(home) == made
    assert not home.key.exists()
    assert not home.security.exists()
    assert home.kept.resolve() == places.state.resolve()
    assert home.password.stat().st_mode & 0o777 == 0o600
    said = "\n".join(container.greeting(made, home))
    assert "ipython-builder password" in said
    assert "none, since there is no cluster key here" in said
    password = home.password.read_text()
    assert password.strip() not in said
    # What is kept outlives the rest, as with a volume.
    again, _ = container.make(container.read({}, places), tmp_path / "other", places)
    assert again.password.read_text() == password
    given = container.read({"IPYTHON_USER_PASSWORD": "mine"}, places)
    container.make(given, tmp_path / "other", places)
    assert again.password.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("kind", "engines", "roles"),
    [
        ("controller", "1", ("controller",)),
        ("engine", "1", ("pool", "engine")),
        ("engine", "3", ("pool", "engine")),
    ],
)
def test_parts_of_a_cluster(
    places: Places, tmp_path: Path, kind: str, engines: str, roles: tuple[str, ...]
) -> None:
    facts: dict[str, Any] = {"preload": ["json"], "preload_timeout": 7, "source": "https://host/nb.git"}
    places.facts.write_text(json.dumps(facts))
    env = CLUSTER | {
        "IPYTHON_CONTAINER_TYPE": kind,
        "IPYTHON_ENGINES": engines,
        "IPYTHON_GRACE_SECONDS": "3.5",
    }
    home, made = container.make(container.read(env, places), tmp_path / "state", places)
    assert made.roles == roles
    assert made.engines == (int(engines) if kind == "engine" else 0)
    assert made.fork == (kind == "engine" and engines != "1")
    assert (made.curve, made.grace, made.preload) == (True, 3.5, ("json",))
    assert home.key.stat().st_mode & 0o777 == 0o600
    client = json.loads((home.security / "ipcontroller-client.json").read_text())
    assert client["interface"] == "tcp://ipcontroller-tt"
    assert os.path.realpath(tmp_path / "state" / "ipython") == str(home.ipython)
    said = "\n".join(container.greeting(made, home))
    assert "cluster tt" in said
    assert KEY not in said
    assert not home.password.exists()


def test_a_command_is_a_client(places: Places, tmp_path: Path) -> None:
    env = CLUSTER | {"IPYTHON_CONTAINER_TYPE": "engine"}
    asked = container.read(env, places, client=True)
    home, made = container.make(asked, tmp_path / "state", places, client=True)
    assert made.roles == ()
    assert (home.security / "ipcontroller-client.json").exists()


def test_a_container_that_starts_again(places: Places, tmp_path: Path) -> None:
    asked = container.read(CLUSTER, places)
    for _ in range(2):
        home, _ = container.make(asked, tmp_path / "state", places)
    assert home.key.exists()
    home, _ = container.make(
        container.read({"IPYTHON_CLUSTER_LABEL": "tt"}, places), tmp_path / "state", places
    )
    assert not home.key.exists(), "a key that is given no more is not kept"


def test_an_image_that_is_none(places: Places, tmp_path: Path) -> None:
    (places.app_root / "pyvenv.cfg").unlink()
    with pytest.raises(RepositoryError, match="holds no environment") as raised:
        container.make(container.read({}, places), tmp_path / "state", places)
    assert "FROM ipython-builder" in (raised.value.hint or "")


def test_a_state_that_cannot_be_written(places: Places, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuilderError, match="cannot be written") as raised:
        container.make(container.read({}, places), tmp_path / "file" / "state", places)
    assert "--tmpfs" in (raised.value.hint or "")


def seeded(places: Places, tmp_path: Path, folder: Path, kind: str = "viewer") -> Path:
    env = CLUSTER | {"IPYTHON_NOTEBOOK_DIR": str(folder), "IPYTHON_CONTAINER_TYPE": kind}
    _, made = container.make(container.read(env, places), tmp_path / "state", places)
    return Path(made.notebooks)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != seeding.NOTE)


def test_an_empty_folder_gets_the_notebooks_once(places: Places, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    (folder / "lost+found").mkdir(parents=True)
    assert seeded(places, tmp_path, folder) == folder
    assert names(folder) == ["below", "below/two.ipynb", "lost+found", "one.ipynb"]
    (folder / "below" / "two.ipynb").write_text("mine")
    (folder / "one.ipynb").unlink()
    seeded(places, tmp_path, folder)
    assert names(folder) == ["below", "below/two.ipynb", "lost+found"]
    assert (folder / "below" / "two.ipynb").read_text() == "mine"


def test_a_copy_that_was_cut_off_is_put_right(places: Places, tmp_path: Path) -> None:
    half = tmp_path / "work" / ".ipython-builder-seed"
    half.mkdir(parents=True)
    (half / "one.ipynb").write_text("ha")
    seeded(places, tmp_path, half.parent)
    assert (half.parent / "one.ipynb").read_text() == "{}", "half a copy is none"
    assert names(half.parent) == ["below", "below/two.ipynb", "one.ipynb"]
    # It was whole, and not all of it had its name: somebody has worked with what had.
    half.mkdir()
    (half / "three.ipynb").write_text("3")
    (half / "one.ipynb").write_text("old")
    (half.parent / "one.ipynb").write_text("mine")
    seeded(places, tmp_path, half.parent)
    assert names(half.parent) == ["below", "below/two.ipynb", "one.ipynb", "three.ipynb"]
    assert (half.parent / "one.ipynb").read_text() == "mine"


def test_another_image_renews_what_nobody_has_changed(places: Places, tmp_path: Path) -> None:
    folder, source = tmp_path / "work", places.source
    for name in ("kept", "mine", "gone", "old", "taken"):
        (source / f"{name}.py").write_text("1")
    (source / "link").symlink_to("kept.py")
    seeded(places, tmp_path, folder)
    (folder / "mine.py").write_text("somebody's")
    (folder / "own.py").write_text("somebody's")
    (folder / "gone.py").unlink()
    (folder / "lib").write_text("a file, where the image will have a folder")
    # As another image: the same path, another folder.
    shutil.copytree(source, tmp_path / "second", symlinks=True)
    shutil.rmtree(source)
    (tmp_path / "second").rename(source)
    for name in ("kept", "mine", "gone", "new", "own"):
        (source / f"{name}.py").write_text("2")
    (source / "old.py").unlink()
    (source / "lib").mkdir()
    (source / "lib" / "part.py").write_text("2")
    (source / "link").unlink()
    (source / "link").symlink_to("new.py")
    for _ in range(2):
        seeded(places, tmp_path, folder)
        texts = {path.name: path.read_text() for path in folder.glob("*.py")}
        assert texts == {
            "kept.py": "2", "mine.py": "somebody's", "own.py": "somebody's", "new.py": "2", "taken.py": "1",
        }  # fmt: skip
        assert os.readlink(folder / "link") == "new.py"
        assert (folder / "lib").is_file()
    (folder / seeding.NOTE).write_text("nonsense")
    (folder / "kept.py").write_text("3")
    seeded(places, tmp_path, folder)
    assert (folder / "kept.py").read_text() == "3"


def test_only_a_viewer_fills_a_folder(places: Places, tmp_path: Path) -> None:
    assert seeded(places, tmp_path, tmp_path / "work", "engine") == places.source
    (tmp_path / "work").mkdir()
    assert seeded(places, tmp_path, tmp_path / "work", "engine") == tmp_path / "work"
    assert names(tmp_path / "work") == []


def test_a_folder_that_cannot_be_made(places: Places, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuilderError, match="IPYTHON_NOTEBOOK_DIR") as raised:
        seeded(places, tmp_path, tmp_path / "file" / "work")
    assert "mount a volume" in (raised.value.hint or "")


def test_a_secret_that_somebody_names_in_a_template_is_the_only_one(places: Places) -> None:
    secret(places, "ipython-cluster/tls.key", "-----BEGIN PRIVATE KEY-----\n" + "x" * 100)
    engine = {"IPYTHON_CONTAINER_TYPE": "engine", "IPYTHON_CLUSTER_LABEL": "tt"}
    own = {"IPYTHON_CLUSTER_SECRET": "mine"}
    assert container.read(engine | {"IPYTHON_CLUSTER_SECRET": "service-ca"}, places).key
    with pytest.raises(UsageError, match="IPYTHON_CLUSTER_SECRET=mine") as raised:
        container.read(engine | own, places)
    assert "create secret generic mine" in (raised.value.hint or "")
    assert container.read({"IPYTHON_CLUSTER_LABEL": "tt"} | own, places).key is None, "a viewer waits for it"
    secret(places, "ipython-cluster/key", KEY)
    assert container.read(engine | own, places).key == KEY.encode()
