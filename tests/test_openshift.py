"""`--on openshift`, `template install` and the templates, with the real `oc`: a stand-in for OpenShift's API server.

What is real: `oc`, its library, pods, deployments, and all that Kubernetes does. What is not is said in
`tests.openshift_api`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import settings
from tests import containers, manifests, openshift_api, renew_new_app, template_cases
from tests.conftest import CHECKOUT, Cli, Home, Said
from tests.engine import Engine
from tests.engines import Images
from tests.kubernetes.fixtures import Kubernetes, Project
from tests.openshift_api import OpenShift
from tests.workbench import git, notebook, outputs, until

KINDS = (
    "deployments,services,secrets,persistentvolumeclaims,networkpolicies,poddisruptionbudgets,routes,"
    "buildconfigs,builds,imagestreams"
)
PASSWORD = "correct horse battery staple"
FAILED = """\
error: numpy 0.0.1 is on no index
 next: name a version that there is, in requirements.txt
subprocess exited with status 3
error: build error: error building at STEP "RUN /usr/libexec/s2i/assemble": exit status 3
"""
# Every call of `oc` is noted, then made.
WRAPPER = """\
#!/bin/sh
printf '%s\\n' "$*" >> "{log}"
exec "{oc}" "$@"
"""


@pytest.fixture(scope="session")
def oc() -> str:
    """The real one."""
    found = template_cases.oc()
    if found is None:
        # Not `missing`: it is in no package index, so that a CI need not have it.
        pytest.skip("the real oc is not here: name one with $OC")
    return str(Path(found).resolve())


@pytest.fixture(scope="module")
def kinds(oc: str, kubernetes: Kubernetes) -> Kubernetes:
    """The node, which knows OpenShift's kinds."""
    objects = openshift_api.definitions()
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubernetes.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=content)
    names = [f"customresourcedefinition/{one['metadata']['name']}" for one in objects]
    kubernetes.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    return kubernetes


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with work that is in no commit."""
    folder = tmp_path_factory.mktemp("repository")
    notebook(
        folder / "cluster.ipynb",
        "import ipyparallel as ipp; rc = ipp.Client(timeout=60); len(rc.ids)",
        "rc[:].apply_sync(lambda: __import__('helpers').answer)",
    )
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    (folder / "helpers.py").write_text("answer = 41\n")
    return folder


@pytest.fixture(scope="module")
def image(podman: Engine, builder_image: Images, kinds: Kubernetes, repository: Path) -> str:
    """What builds make, in the node."""
    return kinds.load(containers.image_with(podman, builder_image.builder, repository))


@dataclass(frozen=True)
class Place:
    """A command line whose `oc` finds a project of what it takes for an OpenShift."""

    cli: Cli
    openshift: OpenShift
    namespace: str
    folder: Path
    source: Path

    @property
    def environ(self) -> dict[str, str]:
        (self.folder / "tmp").mkdir(exist_ok=True)
        theirs = self.openshift.kubernetes.environ
        return {
            "KUBECONFIG": str(self.openshift.kubeconfig),
            "PATH": f"{self.folder / 'bin'}:{theirs['PATH']}",
            "NO_PROXY": f"{theirs['NO_PROXY']},127.0.0.1",
            "no_proxy": f"{theirs['NO_PROXY']},127.0.0.1",
            "TMPDIR": str(self.folder / "tmp"),
        }

    def __call__(self, *words: str | Path, **options: Any) -> Said:
        return self.cli(*words, env=self.environ | options.pop("env", {}), **options)

    def up(self, *words: str | Path, source: str | Path | None = None, **options: Any) -> Said:
        where = ("--on", "openshift", "--namespace", self.namespace)
        return self("up", source or self.source, *where, *words, **options)

    def oc(self, *words: str | Path, check: bool = True, stdin: str | None = None) -> Said:
        """The real `oc`, as a person would call it."""
        done = subprocess.run(
            ["oc", "--namespace", self.namespace, *words],
            env=self.cli.home.environ | self.environ,
            cwd=CHECKOUT,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        if check and said.rc:
            pytest.fail(f"oc {' '.join(map(str, words))} ended with {said.rc}:\n{said.stdout}\n{said.stderr}")
        return said

    def get(self, *words: str) -> Any:
        return self.oc("get", *words, "--output=json").json

    def there(self, label: str) -> list[str]:
        """The names of all that the project has of a cluster."""
        names = self.oc("get", KINDS, f"--selector=ipython-cluster={label}", "--output=name").stdout.split()
        configs = any(name.startswith("buildconfig.") for name in names)
        # Those whose BuildConfig has gone are the garbage collector's.
        return [name for name in names if configs or not name.startswith("build.")]

    def builder(self) -> None:
        """Have a builder image, as a build of it would have left it."""
        stream = {
            "apiVersion": "image.openshift.io/v1",
            "kind": "ImageStream",
            "metadata": {"name": "ipython-builder", "namespace": self.namespace},
            "status": {
                "tags": [{"tag": "latest", "items": [{"dockerImageReference": "the/builder@sha256:0"}]}]
            },
        }
        self.openshift.kubernetes.apply(self.namespace, stream)

    def called(self) -> str:
        """All command lines of `oc`."""
        return (self.folder / "called").read_text()

    def another(self) -> Place:
        """The same for another person, who has noted nothing."""
        home = self.folder / "another"
        home.mkdir()
        environ = self.cli.home.environ | {
            name: str(home / name) for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
        }
        return replace(self, cli=Cli(Home(home, settings.load(), environ)))


@pytest.fixture
def openshift(kinds: Kubernetes, tmp_path: Path) -> Iterator[OpenShift]:
    """One whose builds make an image that nobody has."""
    with openshift_api.running(kinds, "localhost/nobody-has-it:1", tmp_path) as made:
        yield made
    assert made.wrong == [], "OpenShift would have refused this"


@pytest.fixture
def place(
    cli: Cli, openshift: OpenShift, project: Project, tmp_path: Path, repository: Path, oc: str
) -> Place:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "oc"
    program.write_text(WRAPPER.format(oc=oc, log=tmp_path / "called"))
    program.chmod(0o755)
    return Place(cli, openshift, project.name, tmp_path, repository)


@pytest.fixture
def full(place: Place, image: str) -> Place:
    """The same, with a builder, and builds that make what the repository is."""
    place.openshift.image = image
    place.builder()
    return place


# -- up, and every other verb ---------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_folder_from_up_to_down(full: Place, tmp_path: Path) -> None:
    place = full
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    words = ("--label", "tt", "--user", "ada", "-n", "2", "--password-file", file)
    made = place.up(*words, "--json", "--progress", "json", check=True)
    told = made.json
    assert told["engines"] == {"requested": 2, "registered": 2}
    assert (told["platform"], told["namespace"], told["password"]) == ("openshift", place.namespace, PASSWORD)
    assert told["url"] == f"https://nbviewer-ada-tt-{place.namespace}.{openshift_api.APPS}/"

    # One build, of the folder as it is, whose words were heard.
    (build,) = place.openshift.builds
    assert build.config == "ipcluster-tt"
    with tarfile.open(fileobj=io.BytesIO(build.archive)) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"cluster.ipynb", "helpers.py"} <= names
    assert not [name for name in names if name.startswith(".git/")]
    assert "STEP 2/3: assemble" in made.stderr

    there = place.there("tt")
    assert {name.partition("/")[0].partition(".")[0] for name in there} == {
        "deployment", "service", "secret", "persistentvolumeclaim", "networkpolicy", "poddisruptionbudget", "route",
        "buildconfig", "build", "imagestream",
    }  # fmt: skip
    assert [name for name in there if "imagestream" in name] == [
        "imagestream.image.openshift.io/ipcluster-tt"
    ]
    deployments = place.get("deployments")["items"]
    assert {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in deployments} == {
        "controller", "viewer", "engine",
    }  # fmt: skip
    for one in deployments:
        (trigger,) = json.loads(one["metadata"]["annotations"][openshift_api.TRIGGERS])
        assert trigger["from"] == {"kind": "ImageStreamTag", "name": "ipcluster-tt:latest"}
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert container["image"] == place.openshift.image
        assert one["metadata"]["generation"] == 1, (
            "it came once, with its image, and had no need of another one"
        )

    # Nothing that is secret is where others see it, or stays.
    key = place.get("secret", "ipcluster-tt")
    assert len(key["data"]["key"]) > 40
    assert "last-applied" not in json.dumps(key["metadata"].get("annotations", {}))
    for public in (place.called(), made.stderr, json.dumps(place.get("deployments"))):
        assert PASSWORD not in public
        assert key["data"]["key"] not in public
    assert list((tmp_path / "tmp").iterdir()) == []

    # Every other verb.
    assert place("password", "tt").stdout.strip() == PASSWORD
    assert place("scale", "tt", "1", "--json", check=True).json["engines"]["registered"] == 1
    done = tmp_path / "done.ipynb"
    place("run", "tt", "cluster.ipynb", "-o", done, check=True)
    assert outputs(done) == ["1", "[41]"]
    said = place("console", "tt", "--no-banner", "-c", "print(len(rc.ids))", check=True)
    assert said.stdout.strip() == "1"
    assert "created hub" in place("logs", "tt", "controller", "--last", "500", check=True).stdout
    status = place("status", "tt", "--json", check=True).json
    assert (status["state"], status["url"]) == ("ready", told["url"])
    (listed,) = place("ls", "--json").json
    assert (listed["label"], listed["platform"], listed["state"]) == ("tt", "openshift", "ready")

    # Somebody else has a notebook at the same cluster, of the same image.
    other = place.another()
    joined = other.up("--label", "tt", "--user", "bob", "--json", check=True).json
    assert joined["engines"]["registered"] == 1
    assert joined["url"] == f"https://nbviewer-bob-tt-{place.namespace}.{openshift_api.APPS}/"
    assert joined["password"] not in (PASSWORD, "")
    assert [name for name in place.there("tt") if "imagestream" in name] == [
        "imagestream.image.openshift.io/ipcluster-tt"
    ]

    gone = place("down", "tt", check=True)
    assert "bob" in gone.stderr
    assert "volume claim nbviewer-ada-tt" in gone.stderr
    assert all("bob" in name for name in place.there("tt") if "persistentvolumeclaim" not in name)
    other("down", "tt", "--discard", check=True)
    assert place.there("tt") == ["persistentvolumeclaim/nbviewer-ada-tt"]
    place.oc("delete", "persistentvolumeclaim", "nbviewer-ada-tt")
    assert place("ls", "--json").json == []


@pytest.mark.timeout(600)
def test_a_repository_that_openshift_fetches(place: Place, image: str) -> None:
    place.openshift.image = image
    place.openshift.shared["ipython-builder:latest"] = "the/builder@sha256:0"
    url = "https://git.example.org/me/notebooks.git"
    words = ("--label", "tt", "--ref", "v2", "--context-dir", "course")
    place.up(*words, "--user", "ada", "-n", "1", source=url, check=True)
    config = place.get("buildconfig", "ipcluster-tt")["spec"]
    assert config["source"] == {"type": "Git", "git": {"uri": url, "ref": "v2"}, "contextDir": "course"}
    assert config["strategy"]["sourceStrategy"]["from"] == {
        "kind": "ImageStreamTag", "name": "ipython-builder:latest", "namespace": "openshift",
    }  # fmt: skip
    (build,) = place.openshift.builds
    assert build.archive == b""
    assert build.request["kind"] == "BuildRequest"
    # Again: another build, and everything stays.
    before = place.get("secret", "ipcluster-tt")["data"]
    place.up(*words, source=url, check=True)
    assert len(place.openshift.builds) == 2
    assert place.get("secret", "ipcluster-tt")["data"] == before
    place("down", "tt", "--discard", check=True)
    assert place.there("tt") == []


def test_a_build_that_fails(full: Place) -> None:
    full.openshift.fails = FAILED
    said = full.up("--label", "tt", "-n", "1")
    assert said.rc == 3, said.stderr
    assert "error: numpy 0.0.1 is on no index\n next: name a version that there is" in said.stderr
    assert "Traceback" not in said.stderr
    assert full.there("tt") == []
    assert full("ls", "--json").json == []


def test_a_build_that_fails_with_other_words(full: Place) -> None:
    full.openshift.fails = "error: build error: no space left\n"
    said = full.up("--label", "tt", "-n", "1")
    assert said.rc == 1
    assert "the build of ipcluster-tt failed" in said.stderr
    assert "no space left" in said.stderr
    assert full.there("tt") == []


def test_ctrl_c_while_it_builds_leaves_nothing(full: Place) -> None:
    words = (
        "up",
        full.source,
        "--on",
        "openshift",
        "--namespace",
        full.namespace,
        "--label",
        "tt",
        "-n",
        "1",
    )
    running = full.cli.start(*words, env=full.environ)
    until(lambda: full.openshift.builds, "it builds")
    running.send_signal(2)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert full.there("tt") == []


def test_an_image_that_does_not_start(full: Place) -> None:
    full.openshift.image = "localhost/nobody-has-it:1"
    said = full.up("--label", "tt", "-n", "1")
    assert said.rc == 1
    assert "its image cannot be pulled" in said.stderr
    assert full.there("tt") == []


def test_no_builder(place: Place) -> None:
    said = place.up("--label", "tt")
    assert said.rc == 69, said.stderr
    assert "there is no builder image ipython-builder in" in said.stderr
    assert "ipython-builder template install" in said.stderr
    assert place.there("tt") == []


def test_who_may_not_and_who_is_nobody(place: Place, tmp_path: Path) -> None:
    kubectl = place.openshift.kubernetes.kubectl
    token = kubectl("create", "token", "default", "--namespace", place.namespace).stdout.strip()
    for secret, rc, message in (
        (token, 1, "you may not do that there"),
        ("nonsense", 69, "you are not logged in"),
    ):
        file = tmp_path / f"config-{rc}"
        file.write_text(json.dumps(place.openshift.config(secret)))
        for said in (
            place.up("--label", "tt", env={"KUBECONFIG": str(file)}),
            place("template", "install", "-n", place.namespace, env={"KUBECONFIG": str(file)}),
        ):
            assert (said.rc, message in said.stderr) == (rc, True), said.stderr
            assert secret not in said.stderr
    assert place.there("tt") == []


@pytest.mark.timeout(600)
def test_a_microshift_has_routes_and_builds_nothing(full: Place) -> None:
    full.openshift.groups = openshift_api.MICROSHIFT
    words = ("--label", "tt", "--user", "ada", "-n", "1")
    said = full.up(*words)
    assert said.rc != 0
    assert "--image" in said.stderr, "what else there is"
    made = full.up(*words, "--image", full.openshift.image, "--json", check=True).json
    assert made["url"] == f"https://nbviewer-ada-tt-{full.namespace}.{openshift_api.APPS}/"
    assert full("status", "tt", "--json", check=True).json["state"] == "ready"
    full("down", "tt", "--discard", check=True)
    full.openshift.groups = openshift_api.GROUPS
    assert [one for one in full.there("tt") if "imagestream" not in one] == []


# -- templates ------------------------------------------------------------------------------------------


def test_install(place: Place) -> None:
    first = place("template", "install", "-n", place.namespace, "--json", check=True).json
    assert first["namespace"] == place.namespace
    there = place.oc("get", "templates,imagestreams,buildconfigs", "--output=name").stdout.split()
    assert sorted(
        name.replace(".openshift.io", "").partition(".")[2].partition("/")[2] for name in there
    ) == sorted(name.partition("/")[2] for name in first["installed"])
    templates = place.get("templates")["items"]
    assert {one["metadata"]["name"] for one in templates} == set(manifests.NAMES)
    for one in templates:
        values = {parameter["name"]: parameter.get("value") for parameter in one["parameters"]}
        assert values["IPYTHON_BUILDER_NAMESPACE"] == place.namespace
    assert {one["metadata"]["name"] for one in place.get("buildconfigs")["items"]} == {
        "ipython-builder", "ipython-builder-scipy",
    }  # fmt: skip

    mine = "https://git.example.org/me/ipython-builder.git"
    again = place(
        "template", "install", "-n", place.namespace, "--repository", mine, "--json", check=True
    ).json
    assert again == first
    assert {one["spec"]["source"]["git"]["uri"] for one in place.get("buildconfigs")["items"]} == {mine}


@pytest.mark.parametrize("groups", [(), openshift_api.MICROSHIFT], ids=["kubernetes", "microshift"])
def test_install_where_there_are_no_templates(place: Place, groups: tuple[str, ...]) -> None:
    place.openshift.groups = groups
    said = place("template", "install", "-n", place.namespace)
    assert said.rc == 1
    assert "this cluster does not know what is asked for" in said.stderr
    assert "templates need OpenShift" in said.stderr
    place.openshift.groups = openshift_api.GROUPS
    assert place.oc("get", "templates,imagestreams,buildconfigs", "--output=name").stdout == ""


@pytest.mark.parametrize("what", ["templates", "templates/openshift/all.yaml"])
def test_create(place: Place, what: str) -> None:
    said = place.oc("create", "-f", what).stdout
    assert {line.split()[0] for line in said.splitlines()} == {
        *(f"template.template.openshift.io/{name}" for name in manifests.NAMES),
        *(f"imagestream.image.openshift.io/{name}" for name in ("ipython-builder", "ipython-builder-scipy")),
        *(f"buildconfig.build.openshift.io/{name}" for name in ("ipython-builder", "ipython-builder-scipy")),
    }
    assert [one.config for one in place.openshift.builds] == ["ipython-builder"], (
        "of itself, and the other after it"
    )


@pytest.mark.parametrize("name", manifests.NAMES)
def test_new_app(place: Place, name: str) -> None:
    place.oc("create", "-f", f"templates/{name}.yaml")
    said = place.oc("new-app", name, "-p", "IPYTHON_CLUSTER_LABEL=x")
    wanted = manifests.template(name)["objects"]
    for one in wanted:
        assert f"{one['kind'].lower()}." in said.stdout or f'{one["kind"].lower()} "' in said.stdout
    assert {one.partition("/")[0].partition(".")[0] for one in place.there("x")} - {"build"} == {
        one["kind"].lower() for one in wanted
    }
    last = manifests.template(name)["message"].splitlines()[-1].strip()
    assert last.replace("${IPYTHON_CLUSTER_LABEL}", "x").partition("${")[0] in said.stdout
    assert "${" not in said.stdout


def test_what_new_app_has_made_is_found_and_removed(place: Place, image: str) -> None:
    place.openshift.image = image
    place.oc("create", "-f", "templates/")
    for name in ("ipython-cluster-repository", "ipython-notebook-repository"):
        place.oc("new-app", name, "-p", "IPYTHON_CLUSTER_LABEL=x")
    assert sorted(one.config.partition("-")[0] for one in place.openshift.builds) == [
        "ipcluster", "ipython", "nbviewer",
    ]  # fmt: skip

    def images() -> set[str]:
        every = [one["spec"]["template"]["spec"]["containers"] for one in place.get("deployments")["items"]]
        return {one["image"] for containers in every for one in containers}

    until(lambda: images() == {place.openshift.image}, "the triggers have given all what was built")
    where = ("--on", "openshift", "--namespace", place.namespace)
    status = place("status", "x", *where, "--json").json
    assert status["engines"]["requested"] == 2
    assert status["state"] != "ready", "there is no service CA that would make the key"
    place("down", "x", *where, "--discard", check=True)
    assert place.there("x") == []


def test_new_app_with_a_parameter_that_there_is_not(place: Place) -> None:
    place.oc("create", "-f", "templates/ipython-cluster-repository.yaml")
    said = place.oc("new-app", "ipython-cluster-repository", "-p", "IPYTHON_CLUSTER_LABLE=x", check=False)
    assert said.rc != 0
    assert "IPYTHON_CLUSTER_LABLE" in said.stderr
    assert place.oc("get", KINDS, "--selector=ipython-cluster", "--output=name").stdout == ""


def test_the_page_of_new_app(place: Place) -> None:
    """What is printed for a person, as it is in the documentation."""
    place.oc("create", "-f", "templates/")
    printed = {}
    for name in manifests.NAMES:
        said = place.oc(*renew_new_app.words(name))
        printed[name] = said.stdout.replace(place.namespace, "lab")
        place.oc("delete", KINDS, "--selector=ipython-cluster")
    if renew_new_app.WISH in os.environ:
        renew_new_app.PAGE.write_text(renew_new_app.page(printed), encoding="utf-8")
    written = renew_new_app.PAGE.read_text(encoding="utf-8")
    assert written == renew_new_app.page(printed), "run: python -m tests.renew_new_app"
