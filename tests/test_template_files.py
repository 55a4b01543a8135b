"""What is made of the template files is as new as they are: the one file with all, the page and the picture."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ipython_builder import documents
from tests import manifests
from tests.conftest import CHECKOUT

OPENSHIFT = manifests.FOLDER / "openshift"


def load(monkeypatch: pytest.MonkeyPatch, script: Path) -> ModuleType:
    """A script as a module, with its folder in front as when it is run."""
    monkeypatch.syspath_prepend(script.parent)
    return importlib.import_module(script.stem)


def test_the_one_file_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    make = load(monkeypatch, OPENSHIFT / "make.py")
    assert make.ALL.read_text(encoding="utf-8") == make.text(), "run: make templates"


def test_the_one_file_has_everything_as_it_is() -> None:
    everything = yaml.safe_load((OPENSHIFT / "all.yaml").read_text(encoding="utf-8"))
    templates = [manifests.template(name) for name in sorted(manifests.NAMES)]
    assert everything == {"apiVersion": "v1", "kind": "List", "items": manifests.builder() + templates}


def test_the_folder_has_nothing_else() -> None:
    """`oc create -f templates/` takes what lies there, and nothing that is further down."""
    there = {path.stem for path in manifests.FOLDER.iterdir() if path.suffix in (".yaml", ".yml", ".json")}
    assert there == {*manifests.NAMES, "ipython-builder"}


class Once(yaml.SafeLoader):
    """Refuses a key that is there twice, of which others take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(set(keys)) == len(keys), f"a key is there twice{node.start_mark}"
        return super().construct_mapping(node, deep=deep)


@pytest.mark.parametrize("name", [*manifests.NAMES, "ipython-builder"])
def test_no_key_is_there_twice(name: str) -> None:
    yaml.load((manifests.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Once)


def test_a_key_that_is_there_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="twice"):
        yaml.load("a:\n  b: 1\n  b: 2\n", Once)


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = load(monkeypatch, CHECKOUT / "docs" / "generate_templates.py")
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run: make templates"


def test_the_picture_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = load(monkeypatch, CHECKOUT / "docs" / "draw_templates.py")
    assert draw.drawn() == draw.digest(), "run: python docs/draw_templates.py"


def test_the_page_describes_the_labels_that_there_are() -> None:
    text = (CHECKOUT / "docs" / "reference" / "templates.md").read_text(encoding="utf-8")
    table = text.partition("## Labels")[2].partition("\n## ")[0]
    described = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    objects = manifests.both("repository")
    pods = [one["spec"]["template"] for one in objects if one["kind"] == "Deployment"]
    assert described == {label for one in [*objects, *pods] for label in one["metadata"]["labels"]}


def test_the_picture_shows_all_there_is_to_fill_in(monkeypatch: pytest.MonkeyPatch) -> None:
    html = load(monkeypatch, CHECKOUT / "docs" / "draw_templates.py").html()
    for name in manifests.NAMES:
        for one in manifests.template(name)["parameters"]:
            assert f"<b>{one['displayName']}</b>" in html
    assert "${" not in html, "the message at the end still has parameters in it"


def test_the_kustomization_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = manifests.FOLDER / "kubernetes"
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("make_kubernetes", folder / "make.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for name, text in made.texts().items():
        assert (folder / name).read_text(encoding="utf-8") == text, "run: make templates"
    (kustomization,) = documents.read((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert sorted(kustomization["resources"]) == sorted(made.texts())
